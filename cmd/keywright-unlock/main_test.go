package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/unlock"
)

func TestUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":          {nil, unlock.ExitUsage, "keywright-unlock boot"},
		"help":             {[]string{"--help"}, unlock.ExitDone, "Exit codes"},
		"help of a verb":   {[]string{"enroll", "--help"}, unlock.ExitDone, "-passphrase-fd"},
		"unknown verb":     {[]string{"bot"}, unlock.ExitUsage, `no command "bot"`},
		"unknown flag":     {[]string{"boot", "--fast"}, unlock.ExitUsage, "-fast"},
		"an argument":      {[]string{"boot", "/dev/sda"}, unlock.ExitUsage, `"/dev/sda" is not a flag`},
		"help of close":    {[]string{"close", "--help"}, unlock.ExitDone, "-root"},
		"no server":        {[]string{"enroll", "--config", "/nonexistent"}, unlock.ExitUsage, "--server and --service-key are needed"},
		"no configuration": {[]string{"boot", "--config", "/nonexistent"}, unlock.ExitFailed, "KW-1400 guest: reading the configuration: open /nonexistent"},
		"status of nobody": {[]string{"status", "--config", "/nonexistent"}, unlock.ExitFailed, "this machine is not enrolled: reading the configuration: open /nonexistent: no such file or directory: run keywright-unlock enroll first"},
		"stage of nobody":  {[]string{"stage", "--config", "/nonexistent"}, unlock.ExitFailed, "run keywright-unlock enroll first"},
		"hook of nobody":   {[]string{"stage", "--hook", "--config", "/nonexistent"}, unlock.ExitDone, ""},
		"next of nobody":   {[]string{"preflight", "--config", "/nonexistent"}, unlock.ExitFailed, "run keywright-unlock enroll first"},
		"key of nobody":    {[]string{"key", "wrap", "--config", "/nonexistent"}, unlock.ExitFailed, "run keywright-unlock enroll first"},
		"key for what":     {[]string{"key"}, unlock.ExitUsage, "wrap, unwrap, rewrap or data-key"},
		"key for this":     {[]string{"key", "sign"}, unlock.ExitUsage, "wrap, unwrap, rewrap or data-key"},
		"size of a key":    {[]string{"key", "data-key", "--size", "48"}, unlock.ExitUsage, "16, 32 or 64 bytes"},
		"help of key":      {[]string{"key", "--help"}, unlock.ExitDone, "-key-output"},
		"version":          {[]string{"version"}, unlock.ExitDone, "keywright-unlock unknown"},
		"version of what":  {[]string{"version", "x"}, unlock.ExitUsage, "no arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			code := run(t.Context(), host{stdout: &out, stderr: &out, announce: func(line string) { out.WriteString(line) }}, c.args)
			assert.Equal(t, c.code, code, out.String())
			assert.Contains(t, out.String(), c.says)
		})
	}
}
