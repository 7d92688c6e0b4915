package awskms

import (
	"encoding/json"
	"strings"
)

// Policy is an IAM policy document, as far as ours use the language. What it does
// not allow is denied.
type Policy struct {
	Statement []Statement
}

// Statement allows actions on keys, where all its conditions hold.
type Statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string]string // operator → condition key → value
}

// Everything allows all on all.
func Everything() Policy {
	return Policy{Statement: []Statement{{Effect: "Allow", Action: []string{"kms:*"}, Resource: []string{"*"}}}}
}

// Nothing allows nothing.
func Nothing() Policy { return Policy{} }

// ParsePolicy reads a document in JSON.
func ParsePolicy(document []byte) (Policy, error) {
	var p Policy
	err := json.Unmarshal(document, &p)
	return p, err
}

func (p Policy) allows(action, arn string, context map[string]string) bool {
	for _, s := range p.Statement {
		if s.Effect == "Allow" && anyLike(s.Action, action) && anyLike(s.Resource, arn) && s.holds(context) {
			return true
		}
	}
	return false
}

func (s Statement) holds(context map[string]string) bool {
	for operator, conditions := range s.Condition {
		for key, want := range conditions {
			name, ours := strings.CutPrefix(key, "kms:EncryptionContext:")
			got, there := context[name]
			if !ours || !there || !compare(operator, want, got) {
				return false
			}
		}
	}
	return true
}

// compare knows two operators of IAM and lets nothing pass by another.
func compare(operator, want, got string) bool {
	switch operator {
	case "StringEquals":
		return want == got
	case "StringLike":
		return like(want, got)
	default:
		return false
	}
}

func anyLike(patterns []string, s string) bool {
	for _, p := range patterns {
		if like(p, s) {
			return true
		}
	}
	return false
}

// like matches a pattern in which an asterisk stands for any text.
func like(pattern, s string) bool {
	before, after, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, before)
	for ok && s != "" && !like(after, s) {
		s = s[1:]
	}
	return ok && like(after, s)
}
