package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"

	"keywright.dev/cmd/keywright/cli"
	"keywright.dev/test/golden"
)

var update = flag.Bool("update", false, "write docs/reference/cli.md")

// TestCommandReferenceIsCurrent renders every verb with its help and flags.
func TestCommandReferenceIsCurrent(t *testing.T) {
	p := &cli.Program{Version: "devel", Out: io.Discard, Err: io.Discard, Env: func(string) string { return "" }, Clock: time.Now}
	root := p.Command()
	var page strings.Builder
	page.WriteString("# The keywright command\n\n")
	writeCommand(&page, root)
	golden.Check(t, filepath.Join("..", "..", "docs", "reference", "cli.md"), page.String(), *update)
}

func writeCommand(page *strings.Builder, c *cobra.Command) {
	if c.Name() == "help" {
		return
	}
	fmt.Fprintf(page, "## %s\n\n", c.CommandPath())
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(page, "```\n%s\n```\n\n", c.UseLine())
	// Completion's own help is indented as code and long: its shells document it.
	if c.Parent() == nil || c.Parent().Name() != "completion" {
		fmt.Fprintf(page, "%s\n\n", strings.TrimSpace(text))
	}
	writeFlags(page, c.LocalFlags())
	for _, sub := range c.Commands() {
		writeCommand(page, sub)
	}
}

func writeFlags(page *strings.Builder, flags *pflag.FlagSet) {
	var lines []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		switch f.DefValue {
		case "", "0", "false", "[]":
		default:
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		lines = append(lines, fmt.Sprintf("- `%s`: %s", strings.TrimSpace(name+" "+kind), usage))
	})
	if len(lines) > 0 {
		fmt.Fprintf(page, "%s\n\n", strings.Join(lines, "\n"))
	}
}

// TestUnitIsThatOfTheService holds the unit file to what the service does.
func TestUnitIsThatOfTheService(t *testing.T) {
	unit, err := os.ReadFile("keywright.service")
	assert.NoError(t, err)
	for _, line := range []string{
		"Type=notify", "WatchdogSec=30s", "LoadCredential=root.key", "NoNewPrivileges=yes", "ProtectSystem=strict",
		"UMask=0077", "MemoryMax=512M", "StateDirectory=keywright", "RuntimeDirectory=keywright",
	} {
		assert.Contains(t, string(unit), line)
	}
}
