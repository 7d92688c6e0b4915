package quorum

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"filippo.io/age/armor"
)

const (
	maxShareFile = 16 << 20
	maxBlocks    = 4096
)

// Entry is a keyring version's wrapper, as the store has it.
type Entry struct {
	Name    string // for people, such as keyring/default@1
	Context []byte // what the key is bound to
	Wrapped []byte
}

// File is what a custodian keeps.
type File struct {
	Custodian string
	Name      string // a good name for the file
	Text      string
}

// ShareFiles returns a file for each custodian with their shares of all entries,
// so that they hold them outside of the store. It takes the wrappers alone: also
// a store that nothing opens has them. installation says whose keys they are; it
// and what made say stand in the plain head of each file.
func ShareFiles(installation string, made time.Time, entries []Entry) ([]File, error) {
	if len(entries) == 0 {
		return nil, errors.New("exporting shares: there is no wrapper")
	}
	rows := make([]Row, len(entries))
	for i, e := range entries {
		var err error
		if rows[i], err = e.row(); err != nil {
			return nil, fmt.Errorf("exporting shares: %w", err)
		}
		if name := rows[i].Set.Quorum; name != rows[0].Set.Quorum {
			return nil, fmt.Errorf("exporting the shares of %s: its wrapper is for the quorum %s instead of %s: rewrap it first", e.Name, name, rows[0].Set.Quorum)
		}
	}
	set := rows[len(rows)-1].Set // names of custodians may change, their order does not
	var files []File
	for i, custodian := range set.Custodians {
		var blocks []block
		for k, e := range entries {
			blocks = append(blocks, block{e.Name, rows[k].sealed[i]})
		}
		text, err := writeBlocks(headOf(set, custodian, installation, made, len(entries)), blocks)
		if err != nil {
			return nil, fmt.Errorf("exporting the shares of %s: %w", custodian, err)
		}
		files = append(files, File{custodian, fmt.Sprintf("recovery-shares-%d-%s.txt", i+1, fileName(custodian)), text})
	}
	return files, nil
}

func headOf(set Set, custodian, installation string, made time.Time, entries int) []string {
	return []string{
		"Keywright: recovery shares of " + custodian,
		"",
		"installation: " + installation,
		fmt.Sprintf("quorum:       %s, any %d of %d custodians", set.Quorum, set.Threshold, len(set.Custodians)),
		"made:         " + made.UTC().Format(time.RFC3339),
		fmt.Sprintf("holds:        %d keyring versions", entries),
		"",
		"Keep this file and your age identity apart from each other and from the service. When you are asked",
		"for your shares, compare the fingerprint of the recipient aloud with whoever asks, and run",
		"  keywright root recovery open-share --identity YOUR-IDENTITY --to RECIPIENT THIS-FILE",
	}
}

// fileName keeps of a label what every file system takes.
func fileName(label string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '-'
	}, label)
}

// block is an age file with a name.
type block struct {
	name   string
	sealed []byte
}

// writeBlocks writes a head as comments, and each block in age's armor behind a
// comment that names it.
func writeBlocks(head []string, blocks []block) (string, error) {
	var out strings.Builder
	for _, line := range head {
		if !printable(line) {
			return "", fmt.Errorf("%q does not print on one line", line)
		}
		out.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
	for _, b := range blocks {
		text, err := armored(b.sealed)
		if err != nil {
			return "", err
		}
		if !printable(b.name) {
			return "", fmt.Errorf("the name %q does not print on one line", b.name)
		}
		fmt.Fprintf(&out, "\n# %s\n%s", b.name, text)
	}
	return out.String(), nil
}

// readBlocks reads what writeBlocks wrote, or a single armored age file. A block
// that is damaged is a block without content, and the others are read.
func readBlocks(text string) ([]block, error) {
	if len(text) > maxShareFile {
		return nil, fmt.Errorf("it has more than %d MiB", maxShareFile>>20)
	}
	var blocks []block
	name, inside := "", []string(nil)
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == armor.Header && inside == nil && len(blocks) < maxBlocks:
			inside = []string{line}
		case inside == nil && strings.HasPrefix(line, "#"):
			name = strings.TrimSpace(strings.TrimLeft(line, "#"))
		case inside == nil && line != "":
			return nil, fmt.Errorf("line %d is no part of a file of shares: want comments and age files in armor", i+1)
		case inside == nil:
		case line == armor.Footer:
			blocks = append(blocks, newBlock(name, len(blocks), append(inside, line)))
			name, inside = "", nil
		default:
			inside = append(inside, line)
		}
	}
	if inside != nil {
		return nil, errors.New("it is cut off: an age file in it has no end")
	}
	if len(blocks) == 0 {
		return nil, errors.New("it holds no age file in armor")
	}
	return blocks, nil
}

func newBlock(name string, before int, lines []string) block {
	if name == "" || !printable(name) {
		name = fmt.Sprintf("share %d of this file", before+1)
	}
	sealed, err := dearmored(strings.Join(lines, "\n") + "\n")
	if err != nil {
		sealed = nil
	}
	return block{name, sealed}
}
