package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"keywright.dev/cmd/keywright/cli"
)

// commands returns the command tree of keywright.
func commands(r release) *cobra.Command {
	p := &cli.Program{
		Version: r.version, Out: io.Discard, Err: io.Discard,
		Env: func(string) string { return "" }, Clock: func() time.Time { return r.date },
	}
	return p.Command()
}

// writeManuals writes a page for each verb.
func writeManuals(c *cobra.Command, r release, dir string) error {
	c.DisableAutoGenTag = true
	for _, sub := range c.Commands() {
		if sub.Name() == "completion" || sub.Name() == "help" {
			c.RemoveCommand(sub) // the package brings the completions
			continue
		}
		if err := writeManuals(sub, r, dir); err != nil {
			return err
		}
	}
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Date: &r.date, Source: "Keywright " + r.version, Manual: "Keywright"}
	if err := doc.GenMan(c, header, &page); err != nil {
		return fmt.Errorf("writing the manual page of %s: %w", c.CommandPath(), err)
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1.gz"
	return writeCompressed(filepath.Join(dir, name), page.String())
}

// The files of completions, as every package has them.
const (
	bashFile = "completion.bash"
	zshFile  = "completion.zsh"
	fishFile = "completion.fish"
)

func writeCobraCompletions(root *cobra.Command, dir string) error {
	var bash, zsh, fish bytes.Buffer
	err := cmp.Or(
		root.GenBashCompletionV2(&bash, true),
		root.GenZshCompletion(&zsh),
		root.GenFishCompletion(&fish, true),
	)
	if err != nil {
		return fmt.Errorf("writing completions: %w", err)
	}
	return cmp.Or(
		write(filepath.Join(dir, bashFile), bash.String()),
		write(filepath.Join(dir, zshFile), zsh.String()),
		write(filepath.Join(dir, fishFile), fish.String()),
	)
}
