package vm

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

//go:embed guest/init
var guestInit []byte

//go:embed guest/devices
var guestDevices []byte

//go:embed guest/give
var guestGive []byte

//go:embed guest/drain
var guestDrain []byte

const (
	busybox = "/bin/busybox"
	// modulesDir is where the guest's init finds modules, and their order.
	modulesDir = "/lib/modules"
)

// Initramfs is what a tiny guest runs from: busybox, modules for QEMU's devices
// and dm-crypt, and what the caller adds.
type Initramfs struct {
	Kernel   Kernel
	Modules  []string // beside those for QEMU's devices and dm-crypt
	Programs []string // ELF files of the host, taken with all that they need
	Files    []File
	// Script is what the guest does: a shell script, run on the console once
	// devices, mounts and network are there; the guest powers off after it.
	// See guest/devices for what it may rely on.
	Script string
	// Init replaces guest/init when it is not empty; it may begin as that does,
	// with ". /lib/devices".
	Init []byte
}

// Cryptsetup returns the programs that an initramfs needs for cryptsetup.
// libgcc_s is loaded by pthread_exit, which no ELF header says.
func Cryptsetup() []string {
	return []string{"/usr/sbin/cryptsetup", "/lib/x86_64-linux-gnu/libgcc_s.so.1"}
}

// Drain returns the program of a guest that waits for its console; see
// guest/drain. An [Initramfs] has it.
func Drain() File { return File{Path: "/bin/drain", Mode: 0o755, Content: guestDrain} }

// Write writes the compressed archive to path. Equal parts give equal bytes.
func (i Initramfs) Write(path string) error {
	files, err := i.files()
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := writeCPIO(&archive, files); err != nil {
		return err
	}
	return writeZstd(path, &archive)
}

func (i Initramfs) files() ([]File, error) {
	files, err := Programs(append([]string{busybox}, i.Programs...)...)
	if err != nil {
		return nil, err
	}
	modules, err := i.modules()
	if err != nil {
		return nil, err
	}
	files = append(files, modules...)
	files = append(files, i.Files...)
	init := i.Init
	if len(init) == 0 {
		init = guestInit
	}
	return append(files,
		File{Path: "/init", Mode: 0o755, Content: init},
		File{Path: "/lib/devices", Mode: 0o644, Content: guestDevices},
		File{Path: "/bin/give", Mode: 0o755, Content: guestGive},
		Drain(),
		File{Path: "/script", Mode: 0o755, Content: []byte(i.Script)},
	), nil
}

// modules returns the modules, and the list of them in the order of loading.
func (i Initramfs) modules() ([]File, error) {
	tree, err := readModules(i.Kernel.Modules)
	if err != nil {
		return nil, err
	}
	order, err := tree.order(append(guestModules(), i.Modules...))
	if err != nil {
		return nil, err
	}
	var files []File
	var list strings.Builder
	for _, path := range order {
		content, err := os.ReadFile(filepath.Join(tree.dir, path))
		if err != nil {
			return nil, fmt.Errorf("taking a module into the initramfs: %w", err)
		}
		target := filepath.Join(modulesDir, filepath.Base(path))
		files = append(files, File{Path: target, Mode: 0o644, Content: content})
		fmt.Fprintln(&list, target)
	}
	return append(files, File{Path: modulesDir + "/order", Mode: 0o644, Content: []byte(list.String())}), nil
}

func writeZstd(path string, content io.Reader) error {
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("creating the initramfs: %w", err)
	}
	defer out.Close()
	// One encoder, since the cut into blocks must not depend on the CPUs.
	compressed, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("compressing %s: %w", path, err)
	}
	if _, err := io.Copy(compressed, content); err != nil {
		return fmt.Errorf("compressing %s: %w", path, err)
	}
	if err := compressed.Close(); err != nil {
		return fmt.Errorf("compressing %s: %w", path, err)
	}
	return out.Close()
}
