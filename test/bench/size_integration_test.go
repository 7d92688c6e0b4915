//go:build integration

package bench_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
)

// BenchmarkInitramfs measures what an initramfs grows by with Keywright's guest
// binary, and with clevis from Debian, as a cpio archive and compressed as
// initramfs-tools compresses. The ratios are what counts; there is no time.
func BenchmarkInitramfs(b *testing.B) {
	var raw, compressed, peerRaw, peerCompressed int
	for b.Loop() {
		raw, compressed = sizeOf(b, guestBinary(b), "./keywright-unlock\n")
		dir, added := clevisImage(b)
		peerRaw, peerCompressed = sizeOf(b, dir, added)
	}
	b.ReportMetric(float64(raw), "bytes-raw")
	b.ReportMetric(float64(compressed), "bytes-zstd")
	b.ReportMetric(float64(peerRaw), "bytes-raw-clevis")
	b.ReportMetric(float64(peerCompressed), "bytes-zstd-clevis")
	b.ReportMetric(float64(raw)/float64(peerRaw), "raw-ratio")
	b.ReportMetric(float64(compressed)/float64(peerCompressed), "zstd-ratio")
	b.ReportMetric(0, "ns/op")
}

// guestBinary builds the guest's program, as make build does, into a folder.
func guestBinary(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", dir, "keywright.dev/cmd/keywright-unlock")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(b, build)
	return dir
}

// sizeOf returns the bytes of an archive of files of dir, raw and compressed
// with the level that Debian's initramfs-tools takes.
func sizeOf(b *testing.B, dir, files string) (raw, compressed int) {
	b.Helper()
	pack := exec.Command("cpio", "--create", "--format=newc", "--quiet")
	pack.Dir, pack.Stdin = dir, strings.NewReader(files)
	archive := run(b, pack)
	zstd := exec.Command("zstd", "-q", "-9", "-c")
	zstd.Stdin = bytes.NewReader(archive)
	return len(archive), len(run(b, zstd))
}

// clevisImage runs clevis's hook in a tree of its packages and returns a folder
// and, a line each, the files that the hook added to it.
func clevisImage(b *testing.B) (dir, added string) {
	b.Helper()
	root := filepath.Join(b.TempDir(), "root")
	for _, archive := range clevisPackages(b) {
		run(b, exec.Command("dpkg-deb", "--extract", archive, root))
	}
	// What configuring the packages would make, as far as the hook needs it.
	require.NoError(b, os.Symlink("mawk", filepath.Join(root, "usr/bin/awk")))
	require.NoError(b, os.WriteFile(filepath.Join(root, "dev/null"), nil, 0o666))
	script, err := os.ReadFile(filepath.Join("testdata", "clevis-hook"))
	require.NoError(b, err)
	hook := exec.Command("/bin/bash", "-s")
	hook.Dir, hook.Stdin = "/", bytes.NewReader(script)
	hook.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if os.Geteuid() != 0 {
		hook.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		hook.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		hook.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	run(b, hook)
	list, err := os.ReadFile(filepath.Join(root, "added"))
	require.NoError(b, err)
	require.Contains(b, string(list), "clevis-decrypt-tang")
	return filepath.Join(root, "image"), string(list)
}

// clevisPackages downloads what a system with nothing installed needs to run
// clevis's hook, or finds it in the cache, and returns the archives.
func clevisPackages(b *testing.B) []string {
	b.Helper()
	cache, err := vm.Cache()
	require.NoError(b, err)
	dir := filepath.Join(cache, "clevis")
	require.NoError(b, os.MkdirAll(filepath.Join(dir, "partial"), 0o755))
	status := filepath.Join(b.TempDir(), "status")
	require.NoError(b, os.WriteFile(status, nil, 0o600))
	run(b, exec.Command("apt-get", append([]string{
		"-qq", "-o", "Dir::State::status=" + status, "-o", "Dir::Cache::archives=" + dir,
		"-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=" + os.Getenv("USER"), "-o", "Acquire::Retries=3",
		"--no-install-recommends", "--download-only", "--yes", "install",
	}, clevisClosure()...)...))
	archives, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	require.NoError(b, err)
	return archives
}

// clevisClosure is clevis and what its hook takes for granted.
func clevisClosure() []string {
	return strings.Fields("clevis-initramfs clevis-luks clevis cryptsetup-initramfs initramfs-tools " +
		"bash coreutils dash debianutils findutils grep gzip libc-bin mawk sed tar util-linux")
}

// run returns what a program printed; what it complained of stands in the
// failure.
func run(b *testing.B, cmd *exec.Cmd) []byte {
	b.Helper()
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	require.NoError(b, err, "%s: %s", cmd, complaint.String())
	return out
}
