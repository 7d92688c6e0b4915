package packages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"keywright.dev/test/debian"
)

// Tree is an installed Debian in a folder, that nothing runs in. What a command in
// it starts ends with the command.
type Tree struct{ dir string }

// NewTree unpacks the tree of packages that test/setup keeps. Whoever is not root
// needs a range of user ids, as mmdebstrap does.
func NewTree(ctx context.Context) (*Tree, error) {
	archive, err := debian.Archive()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-tree-")
	if err != nil {
		return nil, err
	}
	t := &Tree{dir}
	// Only root makes devices; the host's are there while a command runs.
	if _, err := t.outside(ctx, `tar -x -f "$1" -C "$0" --exclude './dev/*'`, archive); err != nil {
		return nil, fmt.Errorf("unpacking Debian: %w", err)
	}
	// The modules of an emulated machine's disks are enough.
	return t, t.Write("/etc/initramfs-tools/conf.d/modules", "MODULES=list\n", 0o644)
}

// Close removes the tree.
func (t *Tree) Close(ctx context.Context) error {
	_, err := t.outside(ctx, `rm -rf --one-file-system "$0"`)
	return err
}

// Path is that of a file in the tree, as the host sees it.
func (t *Tree) Path(name string) string { return filepath.Join(t.dir, name) }

// Write writes a file and its folder.
func (t *Tree) Write(name, text string, mode os.FileMode) error {
	path := t.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}

// Run runs a command of a shell in the tree and returns all that it said.
func (t *Tree) Run(ctx context.Context, command string) (string, error) {
	const enter = `mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" /bin/sh -c "$1"`
	return t.outside(ctx, enter, command)
}

// outside runs a command of a shell in new namespaces, on the host's files.
func (t *Tree) outside(ctx context.Context, script string, args ...string) (string, error) {
	flags := []string{"--mount", "--pid", "--fork", "--kill-child"}
	if os.Geteuid() != 0 {
		flags = append(flags, "--map-root-user", "--map-auto")
	}
	args = append(append(flags, "/bin/sh", "-c", script, t.dir), args...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("running %q: %w: %s", args[len(args)-1], err, out)
	}
	return string(out), nil
}
