package kms

import "keywright.dev/kms/claims"

// commandLineOf returns text where it is the command line that set measured.
// What a guest says of it is worth nothing else.
func commandLineOf(set claims.Set, text string) string {
	measured, ok := set.One(claims.KernelCommandLine)
	if !ok || text == "" || claims.CommandLineDigest(text) != measured {
		return ""
	}
	return text
}

// commandLineOfFiles returns the command line that files give to the measurement
// predicted from them.
func commandLineOfFiles(predicted, files claims.Set) string {
	text, _ := files.One(claims.CommandLineText)
	return commandLineOf(predicted, text)
}

// readable puts command lines in the place of their digests, where they are
// known.
func readable(differences []claims.Difference, was, is string) []claims.Difference {
	for i := range differences {
		if differences[i].Name != claims.KernelCommandLine {
			continue
		}
		if was != "" {
			differences[i].Was = was
		}
		if is != "" {
			differences[i].Is = is
		}
	}
	return differences
}
