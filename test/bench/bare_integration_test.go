//go:build integration

package bench_test

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"keywright.dev/kms/api"
	"keywright.dev/kms/pki"
)

// bare does, for each connection, the work that no service like this can do
// without, and nothing else: TLS 1.3 hybrid handshake, decoding a release
// request and hashing its event log, one ECDSA P-256 verification, HKDF and
// AES-GCM, an Ed25519 and an ECDSA signature, HPKE to the recipient, and an
// append that is on disk, together with others, before the answer leaves. It
// has no HTTP, no rows, no policy, no challenge and checks nothing.
type bare struct {
	tls       *tls.Config
	identity  *ecdsa.PrivateKey
	log       ed25519.PrivateKey
	signature []byte // over the quote of every request
	signed    [32]byte
	recipient []byte
	wrapped   []byte
	commits   chan commit
}

// gcPercent is the service's: see cmd/keywright.
const gcPercent = 400

// entrySize and messageSize are what an audit entry and the padded message of a
// release have, in bytes.
const (
	entrySize   = 900
	messageSize = 4096
)

func newBare(dir string) (*bare, error) {
	b := &bare{commits: make(chan commit, 256), wrapped: make([]byte, 12+32+16)}
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		return nil, err
	}
	source, err := pki.NewSource(ca, pki.Names{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, time.Now)
	if err != nil {
		return nil, err
	}
	b.tls = pki.TLSConfig(source.GetCertificate)
	if b.identity, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if _, b.log, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return nil, err
	}
	b.signed = sha256.Sum256([]byte("a quote"))
	if b.signature, err = b.identity.Sign(rand.Reader, b.signed[:], crypto.SHA256); err != nil {
		return nil, err
	}
	private, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, err
	}
	b.recipient = private.PublicKey().Bytes()
	file, err := os.OpenFile(filepath.Join(dir, "bare.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	go group(file, b.commits)
	return b, nil
}

// commit is one append that somebody waits for.
type commit struct {
	record []byte
	done   chan error
}

// group appends what waits and syncs it once.
func group(file *os.File, commits <-chan commit) {
	for first := range commits {
		members := []commit{first}
		records := first.record
		for more := true; more; {
			select {
			case c := <-commits:
				members, records = append(members, c), append(records, c.record...)
			default:
				more = false
			}
		}
		_, err := file.Write(records)
		err = errors.Join(err, syscall.Fdatasync(int(file.Fd())))
		for _, c := range members {
			c.done <- err
		}
	}
}

// serve answers one request.
func (b *bare) serve(conn net.Conn) error {
	secured := tls.Server(conn, b.tls)
	defer secured.Close()
	body, err := readFrame(secured)
	if err != nil {
		return err
	}
	answer, err := b.answer(body)
	if err != nil {
		return err
	}
	return writeFrame(secured, answer)
}

func (b *bare) answer(body []byte) ([]byte, error) {
	var request api.ReleaseRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	hash := sha256.Sum256(request.Evidence.EventLog)
	if !ecdsa.VerifyASN1(&b.identity.PublicKey, b.signed[:], b.signature) {
		return nil, errors.New("the signature does not verify")
	}
	if err := b.derive(request.Statement); err != nil {
		return nil, err
	}
	entry := make([]byte, entrySize)
	copy(entry, hash[:])
	c := commit{append(entry, ed25519.Sign(b.log, entry)...), make(chan error, 1)}
	b.commits <- c
	if err := <-c.done; err != nil {
		return nil, err
	}
	return b.seal(request.Statement)
}

// derive is what opens one wrapped secret.
func (b *bare) derive(context []byte) error {
	key, err := hkdf.Key(sha256.New, b.wrapped[:32], nil, string(context), 64)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		return err
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	// That it does not open costs what opening costs.
	if _, err = gcm.Open(nil, nil, b.wrapped, nil); err == nil {
		return errors.New("zeros opened")
	}
	return nil
}

func (b *bare) seal(statement []byte) ([]byte, error) {
	recipient, err := hpke.MLKEM768X25519().NewPublicKey(b.recipient)
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("bare"), make([]byte, messageSize))
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(append(sealed, statement...))
	signature, err := b.identity.Sign(rand.Reader, hash[:], crypto.SHA256)
	return append(sealed, signature...), err
}

func readFrame(r io.Reader) ([]byte, error) {
	var size uint32
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	body := make([]byte, size)
	_, err := io.ReadFull(r, body)
	return body, err
}

func writeFrame(w io.Writer, body []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// serveBare is the other process: it says where it listens, and serves until
// its input ends.
func serveBare(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(gcPercent)
	dir, err := os.MkdirTemp("", "bare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := newBare(dir)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, in) // its end is what counts
		listener.Close()
	}()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			if err := b.serve(conn); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}
