package vm

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// guestModules is what a guest of QEMU needs for its devices and for dm-crypt
// with AES-XTS; what they depend on comes by itself. ecb is what xts builds on
// where a CPU has no AES instructions, and nothing declares it.
func guestModules() []string {
	return []string{"virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "dm_crypt", "ecb", "xts", "aesni_intel"}
}

// moduleTree answers from a kernel's modules.dep and modules.builtin.
type moduleTree struct {
	dir     string
	paths   map[string]string   // name → path below dir
	needs   map[string][]string // path → paths, the first to be loaded last
	builtin map[string]bool     // names
}

func readModules(dir string) (moduleTree, error) {
	tree := moduleTree{dir, map[string]string{}, map[string][]string{}, map[string]bool{}}
	err := eachLine(filepath.Join(dir, "modules.dep"), func(line string) {
		module, needs, _ := strings.Cut(line, ":")
		tree.paths[moduleName(module)] = module
		tree.needs[module] = strings.Fields(needs)
	})
	if err != nil {
		return moduleTree{}, err
	}
	err = eachLine(filepath.Join(dir, "modules.builtin"), func(line string) {
		tree.builtin[moduleName(line)] = true
	})
	return tree, err
}

func eachLine(name string, do func(string)) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("reading the kernel's modules: %w: run test/setup vm", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		do(lines.Text())
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// moduleName returns the name under which the kernel knows a module's file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// order returns the paths of the named modules and of all that they need, in
// the order in which to load them. Names of built-in modules are passed over.
func (t moduleTree) order(names []string) ([]string, error) {
	var paths []string
	add := func(path string) {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, name := range names {
		name = moduleName(name)
		if t.builtin[name] {
			continue
		}
		path, known := t.paths[name]
		if !known {
			return nil, fmt.Errorf("ordering the guest's modules: %s has no module %s", t.dir, name)
		}
		for _, need := range slices.Backward(t.needs[path]) {
			add(need)
		}
		add(path)
	}
	return paths, nil
}
