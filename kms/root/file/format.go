package file

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

const (
	// header is the first line of a key file, the key in base64 is the second.
	header = "keywright-root-v1\n"
	// protectedHeader is the first line of a key file under a passphrase; the
	// others are the derivation, the encrypted key, and a digest of all before.
	protectedHeader = "keywright-root-passphrase-v1\n"
	maxFile         = 512

	saltSize = 16
	// sealedSize is what [local.Encrypt] makes of a key: version, nonce, tag.
	sealedSize = 1 + 12 + root.KeySize + 16
)

var (
	errForm   = errors.New("it is not a root key file: want a line keywright-root-v1 and 32 bytes in base64")
	errDigest = errors.New("it is damaged: its last line is not the digest of those before; bring back a copy")
)

func renderPlain(key secret.Bytes) secret.Bytes {
	return secret.New(base64.StdEncoding.AppendEncode([]byte(header), key.Expose()))
}

func parsePlain(text secret.Bytes) (secret.Bytes, error) {
	data := text.Expose()
	want := len(header) + base64.StdEncoding.EncodedLen(root.KeySize)
	if len(data) == want+1 && data[want] == '\n' {
		data = data[:want]
	}
	if len(data) != want || string(data[:len(header)]) != header {
		return secret.Bytes{}, errForm
	}
	key := make([]byte, base64.StdEncoding.DecodedLen(len(data)-len(header)))
	n, err := base64.StdEncoding.Strict().Decode(key, data[len(header):])
	if err != nil || n != root.KeySize {
		clear(key)
		return secret.Bytes{}, errors.New("its second line is not 32 bytes in base64")
	}
	return secret.New(key[:n]), nil
}

// protected is a key file under a passphrase.
type protected struct {
	cost cost
	salt []byte
	// sealed is the key, encrypted under what the passphrase derives, with the
	// lines before as additional data.
	sealed []byte
}

func isProtected(text secret.Bytes) bool {
	return bytes.HasPrefix(text.Expose(), []byte(protectedHeader))
}

// derivation returns the first two lines.
func (p protected) derivation() string {
	return fmt.Sprintf("%sargon2id m=%d t=%d p=%d %s\n", protectedHeader,
		p.cost.memory, p.cost.passes, p.cost.lanes, base64.StdEncoding.EncodeToString(p.salt))
}

// render returns the one form that parseProtected reads.
func (p protected) render() string {
	return local.AddDigest(p.derivation() + base64.StdEncoding.EncodeToString(p.sealed) + "\n")
}

func parseProtected(text string) (protected, error) {
	body, whole := local.CutDigest(text)
	if !whole {
		return protected{}, errDigest
	}
	lines := strings.Split(body, "\n")
	if len(lines) != 4 {
		return protected{}, errors.New("a root key file under a passphrase has four lines")
	}
	p, err := parseDerivation(lines[1])
	if err != nil {
		return protected{}, err
	}
	p.sealed, err = base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(p.sealed) != sealedSize || p.render() != text {
		return protected{}, errors.New("its third line is not an encrypted key in base64")
	}
	return p, nil
}

func parseDerivation(line string) (protected, error) {
	fields := strings.Split(line, " ")
	if len(fields) != 5 || fields[0] != "argon2id" {
		return protected{}, errors.New("its second line is not: argon2id m=KiB t=PASSES p=LANES SALT")
	}
	var numbers [3]uint32
	for i, name := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(fields[1+i], name)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil {
			return protected{}, fmt.Errorf("its second line has no number %s", name)
		}
		numbers[i] = uint32(n)
	}
	c := cost{numbers[0], numbers[1], numbers[2]}
	if err := c.check(); err != nil {
		return protected{}, err
	}
	salt, err := base64.StdEncoding.Strict().DecodeString(fields[4])
	if err != nil || len(salt) != saltSize {
		return protected{}, errors.New("its salt is not 16 bytes in base64")
	}
	return protected{cost: c, salt: salt}, nil
}
