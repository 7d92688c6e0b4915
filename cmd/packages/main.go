// Command packages makes what the Debian packages hold beside programs, units and
// scripts: manual pages, completions, change logs and copyright files, all from the
// programs themselves. The script build beside it, which runs it, makes the packages.
//
// Invariants:
//   - The same commit gives the same bytes: no clock, no order of a map.
//   - Manual pages and completions are those of the commands as they are.
//   - Whatever is linked into a program has its licence in the copyright file.
//
// It refuses a version that dpkg would not sort.
package main

import (
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "packages: %v\n", err)
		os.Exit(1)
	}
}

// release is what is packaged.
type release struct {
	version string // as git describes it
	debian  string // as dpkg sorts it
	date    time.Time
}

func run(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("packages", flag.ContinueOnError)
	version := set.String("version", "", "version as `git describe` tells it")
	epoch := set.Int64("epoch", 0, "`SECONDS` since 1970 of the commit")
	programs := set.String("programs", "", "`FOLDER` with the programs that are packaged")
	client := set.String("client", "", "keywright-unlock `PROGRAM` that runs on this host, to be asked for its help")
	out := set.String("out", "", "`FOLDER` to write into; without it the package's version is printed")
	if err := set.Parse(args); err != nil {
		return err
	}
	debian, err := debianVersion(*version, time.Unix(*epoch, 0))
	if err != nil {
		return err
	}
	if *out == "" {
		fmt.Println(debian)
		return nil
	}
	r := release{*version, debian, time.Unix(*epoch, 0).UTC()}
	return errors.Join(
		service(ctx, r, *programs, filepath.Join(*out, "keywright")),
		unlocker(ctx, r, *programs, *client, filepath.Join(*out, "keywright-unlock")),
	)
}

// service writes what belongs to the package keywright.
func service(ctx context.Context, r release, programs, out string) error {
	root := commands(r)
	if err := writeManuals(root, r, filepath.Join(out, "man")); err != nil {
		return err
	}
	if err := writeCobraCompletions(commands(r), out); err != nil {
		return err
	}
	return writeDocs(ctx, r, filepath.Join(programs, "keywright"), out)
}

// unlocker writes what belongs to the package keywright-unlock.
func unlocker(ctx context.Context, r release, programs, client, out string) error {
	help, err := askHelp(ctx, client)
	if err != nil {
		return err
	}
	if err := writeCompressed(filepath.Join(out, "man", "keywright-unlock.8.gz"), manual(help, r)); err != nil {
		return err
	}
	for name, text := range completions(help) {
		if err := write(filepath.Join(out, name), text); err != nil {
			return err
		}
	}
	return writeDocs(ctx, r, filepath.Join(programs, "keywright-unlock"), out)
}

// write writes a file that everybody may read, and its folder.
func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // everybody may read packages
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // everybody may read packages
}

// writeCompressed writes a file as gzip -9n would.
func writeCompressed(path, text string) error {
	if err := write(path, ""); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	w, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err == nil {
		_, err = w.Write([]byte(text))
		err = errors.Join(err, w.Close())
	}
	return errors.Join(err, f.Close())
}
