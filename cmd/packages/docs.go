package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maintainer is who answers for the packages.
const maintainer = "The Keywright authors <maintainers@keywright.dev>"

// writeDocs writes what stands in /usr/share/doc of a package.
func writeDocs(ctx context.Context, r release, program, dir string) error {
	text, err := copyright(ctx, program)
	if err != nil {
		return err
	}
	entry := fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * Version %s; changelog.gz says what is new.\n\n -- %s  %s\n",
		filepath.Base(dir), r.debian, r.version, maintainer, r.date.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	news, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	return errors.Join(
		write(filepath.Join(dir, "copyright"), text),
		writeCompressed(filepath.Join(dir, "changelog.Debian.gz"), entry),
		writeCompressed(filepath.Join(dir, "changelog.gz"), string(news)),
	)
}

const ours = `This is Keywright, https://keywright.dev/

Copyright the Keywright authors.

Licensed under the Apache License, Version 2.0. On Debian systems its text is in
/usr/share/common-licenses/Apache-2.0.

The program is linked with the modules below, each under the licence that follows.
`

// copyright is our licence and those of everything that is linked into a program.
func copyright(ctx context.Context, program string) (string, error) {
	texts, err := licences(ctx, program)
	if err != nil {
		return "", fmt.Errorf("gathering the licences of %s: %w", program, err)
	}
	modules := make(map[string][]string) // by licence
	for name, text := range texts {
		modules[text] = append(modules[text], name)
	}
	blocks := make(map[string]string) // by modules
	for text, names := range modules {
		slices.Sort(names)
		blocks[strings.Join(names, "\n")] = text
	}
	var out strings.Builder
	out.WriteString(ours)
	for _, names := range slices.Sorted(maps.Keys(blocks)) {
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s", strings.Repeat("=", 78), names, blocks[names]) //nolint:mnd // a line
	}
	return out.String(), nil
}

// licences returns the licence of each module in a program, by name and version.
func licences(ctx context.Context, program string) (map[string]string, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	paths := make([]string, 0, len(info.Deps))
	for _, module := range info.Deps {
		paths = append(paths, module.Path)
	}
	folders, err := moduleFolders(ctx, paths)
	if err != nil {
		return nil, err
	}
	root, err := said(ctx, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	folders["Go "+strings.TrimPrefix(info.GoVersion, "go")] = strings.TrimSpace(root)
	texts := make(map[string]string)
	for name, dir := range folders {
		if texts[name], err = licence(dir); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return texts, nil
}

// moduleFolders returns where the sources of modules are, by name and version.
func moduleFolders(ctx context.Context, paths []string) (map[string]string, error) {
	text, err := said(ctx, "go", append([]string{"list", "-m", "-json"}, paths...)...)
	if err != nil {
		return nil, err
	}
	folders := make(map[string]string)
	for decoder := json.NewDecoder(strings.NewReader(text)); ; {
		var module struct{ Path, Version, Dir string }
		if err := decoder.Decode(&module); errors.Is(err, io.EOF) {
			return folders, nil
		} else if err != nil {
			return nil, err
		}
		folders[module.Path+" "+module.Version] = module.Dir
	}
}

// licence returns the licence files of a folder. The text of the Apache licence
// is on every Debian; what notices ask for is not.
func licence(dir string) (string, error) {
	var texts []string
	for _, pattern := range []string{"LICEN[SC]E*", "UNLICEN[SC]E*", "COPYING*", "NOTICE*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			texts = append(texts, abridged(string(text)))
		}
	}
	if len(texts) == 0 {
		return "", fmt.Errorf("no licence in %s", dir)
	}
	return strings.Join(texts, "\n"), nil
}

// apacheText is the licence without what modules append to it.
var apacheText = regexp.MustCompile(`(?s)Apache License\s+Version 2\.0, January 2004.*?or\s+additional\s+liability\.(?:\s+END OF TERMS AND CONDITIONS)?`)

func abridged(text string) string {
	text = apacheText.ReplaceAllString(text, "Apache License, Version 2.0: /usr/share/common-licenses/Apache-2.0")
	return strings.Trim(text, "\n") + "\n"
}
