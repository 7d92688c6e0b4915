package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"keywright.dev/unlock"
	"keywright.dev/unlock/initramfs"
)

// refresh brings the client in every initramfs of an enrolled machine up to date.
// The package runs it when it was installed or upgraded.
func refresh(ctx context.Context, h host, args []string) error {
	set := flags(h, "initramfs")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration; without it the machine is not enrolled")
	if err := parse(set, args); err != nil {
		return err
	}
	_, err := os.Stat(*config)
	enrolled := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("reading the configuration: %w", err)
	case !h.tools.Present():
		fmt.Fprintln(h.stdout, "This system has no initramfs-tools: whoever makes its initramfs takes the client into it.")
		return nil
	case enrolled:
		fmt.Fprintln(h.stdout, "Making every initramfs anew, with this version of keywright-unlock.")
		return initramfsTools(h.tools, installScripts(h.tools, h.stderr))(ctx)
	case h.tools.Packaged():
		return installScripts(h.tools, h.stderr)()
	default:
		fmt.Fprintln(h.stdout, "This machine is not enrolled: there is nothing to do.")
		return nil
	}
}

// installScripts names the files that stand before the package's.
func installScripts(tools initramfs.Tools, stderr io.Writer) func() error {
	return func() error {
		changed, err := tools.Install()
		for _, path := range changed {
			fmt.Fprintf(stderr, "keywright-unlock: warning: %s is not ours and runs in place of the package's script; remove it unless you want that\n", path)
		}
		return err
	}
}

// initramfsTools has a system's own tools make its initramfs, where it has them,
// after a change.
func initramfsTools(tools initramfs.Tools, change func() error) func(ctx context.Context) error {
	if !tools.Present() {
		return nil
	}
	return func(ctx context.Context) error {
		if err := change(); err != nil {
			return err
		}
		return tools.Update(ctx)
	}
}
