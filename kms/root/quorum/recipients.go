package quorum

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/age"
)

// maxLabel bounds the name of a custodian, in bytes.
const maxLabel = 40

// custodian is a person, or a safe, that holds one share.
type custodian struct {
	label string
	text  string // of the recipient, as age prints it
	age   age.Recipient
}

// parseRecipients reads one recipient a line, behind a # whose it is:
//
//	age1… # Alice, safe in Berlin
//
// It returns them in the order of their texts. Its errors repeat no line: one
// may be an identity that was put there by mistake.
func parseRecipients(text string) ([]custodian, error) {
	var list []custodian
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 || len(list) > MaxCustodians {
		return nil, fmt.Errorf("it names %d custodians: want 1 to %d", len(list), MaxCustodians)
	}
	slices.SortFunc(list, func(a, b custodian) int { return cmp.Compare(a.text, b.text) })
	return list, checkTogether(list)
}

func parseLine(line string) (custodian, error) {
	text, label, found := strings.Cut(line, "#")
	text, label = strings.TrimSpace(text), strings.TrimSpace(label)
	if strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY-") {
		return custodian{}, errors.New("this is an identity, the secret half: take it out of the file, and put its recipient there, which age-keygen -y prints")
	}
	recipient, text, err := parseRecipient(text)
	if err != nil {
		return custodian{}, err
	}
	if !found {
		return custodian{}, errors.New("say behind a # whose recipient this is")
	}
	if err := checkLabel(label); err != nil {
		return custodian{}, err
	}
	return custodian{label: label, text: text, age: recipient}, nil
}

func parseRecipient(text string) (age.Recipient, string, error) {
	if strings.HasPrefix(text, "age1pq1") {
		if r, err := age.ParseHybridRecipient(text); err == nil {
			return r, r.String(), nil
		}
	} else if r, err := age.ParseX25519Recipient(text); err == nil {
		return r, r.String(), nil
	}
	return nil, "", errors.New("this is no recipient of age: want age1… or age1pq1…, as age-keygen prints it")
}

// checkLabel refuses what would not print on one line.
func checkLabel(label string) error {
	if label == "" || len(label) > maxLabel || strings.TrimSpace(label) != label || !printable(label) {
		return fmt.Errorf("the name of a custodian has 1 to %d bytes of printable text", maxLabel)
	}
	return nil
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// checkTogether refuses custodians that are no quorum together.
func checkTogether(list []custodian) error {
	labels := make(map[string]bool)
	hybrid := 0
	for i, c := range list {
		if i > 0 && list[i-1].text == c.text {
			return fmt.Errorf("%q and %q are one recipient, who would hold two shares", list[i-1].label, c.label)
		}
		if labels[c.label] {
			return fmt.Errorf("two recipients are named %q", c.label)
		}
		labels[c.label] = true
		if _, ok := c.age.(*age.HybridRecipient); ok {
			hybrid++
		}
	}
	if hybrid > 0 && hybrid < len(list) {
		return errors.New("want age1… alone or age1pq1… alone: what was copied today would open by the weaker ones, once there are quantum computers")
	}
	return nil
}
