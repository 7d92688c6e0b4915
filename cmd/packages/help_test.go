package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	clientHelp = `keywright-unlock opens this machine's volumes.

  keywright-unlock boot [--config FILE]
        ask for "the" keys
  keywright-unlock boot --prompt PROGRAM
        ask beside it
  keywright-unlock version 
        print the version

  keywright-unlock COMMAND --help shows the flags of a command.

Exit codes: 0 done, 1 failed
(by itself).
`
	bootHelp = "Usage of keywright-unlock boot:\n" +
		"  -config FILE\n    \tFILE [of it], the machine's own\n" +
		"  -q\tsay nothing\n" +
		"  -quick\n    \tskip -q\n"
)

func understood(t *testing.T) *help {
	t.Helper()
	h, err := parseHelp(clientHelp)
	require.NoError(t, err)
	h.verbs[0].flags, err = parseFlags(bootHelp)
	require.NoError(t, err)
	return h
}

func TestHelpIsUnderstood(t *testing.T) {
	assert.Equal(t, &help{
		about: "keywright-unlock opens this machine's volumes.", codes: "0 done, 1 failed (by itself).",
		verbs: []verb{
			{"boot", []use{{"[--config FILE]", `ask for "the" keys`}, {"--prompt PROGRAM", "ask beside it"}}, []flagHelp{
				{"config", "FILE", "FILE [of it], the machine's own"}, {"q", "", "say nothing"}, {"quick", "", "skip -q"},
			}},
			{"version", []use{{"", "print the version"}}, nil},
		},
	}, understood(t))
}

func TestHelpOfAnotherFormIsRefused(t *testing.T) {
	for _, text := range []string{"", "keywright-unlock\n\n  keywright-unlock boot\n        boots\n", "Exit codes: 0\n"} {
		_, err := parseHelp(text)
		require.ErrorContains(t, err, "lists no commands or no exit codes")
	}
	for _, text := range []string{"", "Usage of x:\n", bootHelp + "  -odd: what is this\n"} {
		_, err := parseFlags(text)
		require.ErrorContains(t, err, "flags were understood of")
	}
}

func TestManualPage(t *testing.T) {
	page := manual(understood(t), release{version: "v1.0.0-rc.1", date: time.Unix(1_800_000_000, 0).UTC()})
	for _, text := range []string{
		`.TH KEYWRIGHT\-UNLOCK 8 "2027-01-15" "Keywright v1.0.0\-rc.1" "Keywright"`,
		".TP\n\\fB\\-\\-config\\fR \\fIFILE\\fR\nFILE [of it], the machine\\(aqs own\n",
		".SH EXIT STATUS\n0 done, 1 failed (by itself).\n",
	} {
		assert.Contains(t, page, text)
	}
	assert.Equal(t, 1, strings.Count(page, ".SS boot [\\-\\-config FILE]\nAsk for \\(dqthe\\(dq keys.\n.SS boot \\-\\-prompt PROGRAM\nAsk beside it.\n.TP\n\\fB\\-\\-config"))
	assert.Equal(t, 1, strings.Count(page, "\\fB\\-\\-quick"))
	assert.Equal(t, `\&.so \en`, roff(`.so \n`))
}

func TestCompletions(t *testing.T) {
	files := completions(understood(t))
	assert.Contains(t, files[fishFile], "complete -c keywright-unlock -n '__fish_seen_subcommand_from boot' -l config -r -d 'FILE [of it], the machine’s own'\n")
	assert.Contains(t, files[fishFile], "-l quick -d ")
	assert.Contains(t, files[zshFile], "'--config[FILE (of it), the machine’s own]:FILE:_files'")
	assert.Contains(t, files[zshFile], "'--quick[skip -q]'")

	for name, entry := range map[string]string{bashFile: "*:boot)", zshFile: "'boot:", fishFile: "-a boot "} {
		assert.Equal(t, 1, strings.Count(files[name], entry), name)
	}

	path := filepath.Join(t.TempDir(), bashFile)
	require.NoError(t, write(path, files[bashFile]))
	for line, want := range map[string]string{
		"":             "boot version",
		"v":            "version",
		"boot --":      "--config --q --quick",
		"boot --qu":    "--quick",
		"boot /etc":    "",
		"version --":   "",
		"boot --q --c": "--config",
	} {
		words := strings.Split(line, " ")
		script := `. "$0"; COMP_WORDS=(keywright-unlock "$@"); COMP_CWORD=$#; _keywright_unlock keywright-unlock "${!#}"; echo "${COMPREPLY[*]}"`
		out, err := exec.CommandContext(t.Context(), "bash", append([]string{"-c", script, path}, words...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Equal(t, want, strings.TrimSpace(string(out)), line)
	}
}

// The text of the Apache licence is on every Debian; who holds the copyright is not.
func TestLicencesAreAbridged(t *testing.T) {
	const full = "\n   Apache License\n   Version 2.0, January 2004\n  1. Definitions.\n of any warranty or additional\n liability.\n"
	const want = "Apache License, Version 2.0: /usr/share/common-licenses/Apache-2.0\n"
	assert.Equal(t, "   "+want, abridged(full))
	assert.Equal(t, "   "+want+"\nCopyright X\n", abridged(full+"\nCopyright X\n\n"))
	assert.Equal(t, "   "+want, abridged(full+"\n END OF TERMS AND CONDITIONS"))
	assert.Equal(t, "MIT License\n", abridged("MIT License\n"))
}

func TestLicencesAreFound(t *testing.T) {
	for _, name := range []string{"LICENSE", "LICENCE.txt", "UNLICENSE", "COPYING"} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("do as you like"), 0o600))
		text, err := licence(dir)
		require.NoError(t, err, name)
		assert.Contains(t, text, "do as you like")
	}
	_, err := licence(t.TempDir())
	require.ErrorContains(t, err, "no licence")
}
