package luks

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"
)

// Ended returns the header as it will be once the reencryption has ended, where all
// data is under the new volume key ([Under.All]). Nothing is written: it opens the
// volume as any other, and [Cryptsetup.EndReencryption] makes it the header.
func (u *Under) Ended() (*Volume, error) {
	if !u.All() {
		return nil, fmt.Errorf("ending the reencryption of volume %s: some of the data is not under the new volume key", u.header.UUID)
	}
	text, err := u.endedText()
	if err != nil {
		return nil, fmt.Errorf("ending the reencryption of volume %s: %w", u.header.UUID, err)
	}
	c := *u.header.chosen
	c.bytes = bytes.Clone(c.bytes)
	area := c.bytes[binarySize:]
	if len(text) >= len(area) {
		return nil, fmt.Errorf("ending the reencryption of volume %s: the header has no room", u.header.UUID)
	}
	clear(area)
	copy(area, text)
	c.seqid++
	binary.BigEndian.PutUint64(c.bytes[16:], c.seqid)
	copy(c.bytes[checksumOffset:], checksum(c.bytes))
	m, refusal := parseMetadata(&c)
	if refusal != nil {
		return nil, refusal
	}
	ended := *u.header
	ended.chosen, ended.SequenceID, ended.metadata = &c, c.seqid, m
	return ended.Validate()
}

// endedText is the JSON text without what the reencryption needs.
func (u *Under) endedText() ([]byte, error) {
	d := u.plain.digests[u.after.digest]
	keyslots := make(map[id]jsontext.Value)
	for _, slot := range d.Keyslots {
		keyslots[slot] = u.header.metadata.Keyslots[slot]
	}
	d.Segments = []id{0}
	tokens, err := u.endedTokens(d.Keyslots)
	if err != nil {
		return nil, err
	}
	s := u.parts[0].segment
	config := *u.header.metadata.Config
	config.Requirements = nil
	return json.Marshal(map[string]any{
		"keyslots": keyslots, "tokens": tokens,
		"segments": map[id]endedSegment{0: {s.Type, s.Offset, s.Size, s.IVTweak, s.Encryption, s.SectorSize}},
		"digests":  map[id]digest{u.after.digest: d},
		"config":   endedConfig{config.JSONSize, config.KeyslotsSize, config.Flags},
	}, json.Deterministic(true))
}

// endedSegment and endedConfig are without the members that cryptsetup leaves out.
type endedSegment struct {
	Type       string   `json:"type"`
	Offset     decimal  `json:"offset"`
	Size       string   `json:"size"`
	IVTweak    *decimal `json:"iv_tweak"`
	Encryption string   `json:"encryption"`
	SectorSize uint32   `json:"sector_size"`
}

type endedConfig struct {
	JSONSize     decimal  `json:"json_size"`
	KeyslotsSize decimal  `json:"keyslots_size"`
	Flags        []string `json:"flags,omitempty"`
}

// endedTokens has tokens name the keyslots that stay.
func (u *Under) endedTokens(stay []id) (map[id]jsontext.Value, error) {
	tokens := make(map[id]jsontext.Value)
	for number, value := range u.header.metadata.Tokens {
		var members map[string]jsontext.Value
		if err := lenient(value, &members); err != nil {
			return nil, err
		}
		named := slices.DeleteFunc(slices.Clone(u.plain.tokens[number].Keyslots), func(slot id) bool { return !slices.Contains(stay, slot) })
		text, err := json.Marshal(append([]id{}, named...))
		if err != nil {
			return nil, err
		}
		members["keyslots"] = text
		if tokens[number], err = json.Marshal(members, json.Deterministic(true)); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// EndReencryption makes the header of a device a plain one whose data is all under the
// new volume key: [Cryptsetup.ResumeReencryption] cannot where it was cut between the
// last of the data and the header ([Under.All]). It is written as a restored header is: wherever this is cut,
// one of its two copies is good.
func (c Cryptsetup) EndReencryption(ctx context.Context, device string, ended *Volume) error {
	file, err := ended.restorable()
	if err != nil {
		return fmt.Errorf("ending the reencryption of %s: %w", device, err)
	}
	defer file.Close()
	return c.run(ctx, "luksHeaderRestore", device, input{files: []*os.File{file}}, "--batch-mode", "--header-backup-file", "/proc/self/fd/4", device)
}

// restorable returns a file in memory that is as cryptsetup luksHeaderBackup writes
// them: both copies of the header, and the keyslots that are on the device.
func (v *Volume) restorable() (*os.File, error) {
	copied, err := io.ReadAll(v.HeaderCopy())
	if err != nil {
		return nil, err
	}
	size := v.header.chosen.size
	copy(copied, v.header.chosen.asCopy(primaryMagic, 0))
	copy(copied[size:], v.header.chosen.asCopy(secondaryMagic, size))
	fd, err := unix.MemfdCreate("luks-header", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "luks-header")
	if _, err := file.Write(copied); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
