package quorum

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keywright.dev/kms/secret"
)

// Proof is what a drill found of one keyring version.
type Proof struct {
	Name string
	By   []string // whose shares were given and whole
	Err  error    // nil where the key was recovered, and is the one in use
}

// Report is the result of a drill. It holds no key.
type Report struct {
	Proofs []Proof
	Faults []Fault
}

// Proven tells whether every keyring version would have been recovered. Of none
// it proves nothing.
func (r Report) Proven() bool {
	return len(r.Proofs) > 0 && !slices.ContainsFunc(r.Proofs, func(p Proof) bool { return p.Err != nil })
}

// Drill proves that the shares given recover the keys of the entries: it recovers
// them in memory, holds each against its wrapper and against the check value of
// the key that is in use, which inUse returns by name (see [CheckValue]), and
// wipes it. Nobody sees a key.
func Drill(entries []Entry, given []Given, inUse func(name string) (check string, err error)) Report {
	results, faults := Recover(entries, given)
	report := Report{Faults: faults}
	for i, r := range results {
		report.Proofs = append(report.Proofs, Proof{r.Name, r.By, prove(r, entries[i].Context, inUse)})
		r.Key.Wipe()
	}
	return report
}

func prove(r Result, context []byte, inUse func(string) (string, error)) error {
	if err := errors.Join(r.Err, r.Altered); err != nil {
		return err
	}
	want, err := inUse(r.Name)
	if err != nil {
		return fmt.Errorf("asking for the key in use: %w", err)
	}
	got, err := CheckValue(r.Key, context)
	if err == nil && got != want {
		err = errors.New("the shares recover another key than the one in use")
	}
	return err
}

const (
	answerPrefix = "keywright-drill-"
	answerSize   = 16
)

// Challenge asks a custodian for a sign that they still have their identity,
// without any share leaving them: they decrypt Text with age and send what it
// says.
type Challenge struct {
	Custodian string
	Text      string // an age file in armor
	// Expect is the SHA-256 of the answer, so that it may be kept meanwhile.
	Expect [sha256.Size]byte
}

// Challenges returns one for each custodian.
func (r *Root) Challenges() ([]Challenge, error) {
	var list []Challenge
	for _, c := range r.custodians {
		nonce, err := secret.Random(r.random, answerSize)
		if err != nil {
			return nil, fmt.Errorf("making a challenge for %s: %w", c.label, err)
		}
		answer := hex.AppendEncode(slices.Grow([]byte(answerPrefix), 2*answerSize+1), nonce.Expose())
		nonce.Wipe()
		expect := sha256.Sum256(answer)
		line := secret.New(append(answer, '\n'))
		sealed, err := encrypt(line, c.age)
		line.Wipe()
		if err != nil {
			return nil, fmt.Errorf("making a challenge for %s: %w", c.label, err)
		}
		text, err := armored(sealed)
		if err != nil {
			return nil, fmt.Errorf("making a challenge for %s: %w", c.label, err)
		}
		list = append(list, Challenge{c.label, text, expect})
	}
	return list, nil
}

// Confirms tells whether the answer is that of the challenge.
func (c Challenge) Confirms(answer string) bool {
	got := sha256.Sum256([]byte(strings.TrimSpace(answer)))
	return subtle.ConstantTimeCompare(got[:], c.Expect[:]) == 1
}
