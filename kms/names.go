package kms

import "strings"

// MaxName bounds the names of machines and groups, in bytes.
const MaxName = 63

// validMachineName takes what a host name's first label may be (RFC 1123
// section 2.1), and dots, so that references and policies need no quoting. Names
// that read as a machine id or its beginning are refused.
func validMachineName(name string) bool {
	if name == "" || len(name) > 2*MaxName || !alphanumeric(name[0]) || !alphanumeric(name[len(name)-1]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && c != '-' && c != '.' {
			return false
		}
	}
	return strings.Trim(name, "0123456789abcdef") != "" || len(name) < minIDPrefix
}

// minIDPrefix is how much of an id references must give.
const minIDPrefix = 6

func validGroup(name string) bool {
	return len(name) <= MaxName && validMachineName(name)
}

// validKeyring takes what the names of wrapped secrets may hold.
func validKeyring(name string) bool {
	return validGroup(name) && !strings.Contains(name, ".")
}

func usageKeyring() *UsageError {
	return usage("the keyring is not a name: use a-z, 0-9 and -, at most %d characters, beginning and ending with a letter or digit", MaxName)
}

func usageName() *UsageError {
	return usage("the name is not one: use a-z, 0-9, - and ., beginning and ending with a letter or digit, and nothing that reads as an id")
}

func usageGroup() *UsageError {
	return usage("the group is not a name: use a-z, 0-9, - and ., at most %d characters", MaxName)
}

func usageDigest() *UsageError {
	return usage("the digest names several measurements: give more of it")
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

// validUUID accepts the form that LUKS headers hold: lower-case, with hyphens
// (RFC 9562 section 4).
func validUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

// trimKind takes "machine/" off a reference to a machine, and so on.
func trimKind(kind, ref string) string { return strings.TrimPrefix(ref, kind+"/") }
