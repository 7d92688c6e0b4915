package e2e

import (
	"context"
	"path/filepath"

	"keywright.dev/kms/secret"
	"keywright.dev/test/vm"
)

const (
	// A guest that measures the same every time has the same memory and CPUs
	// every time. One emulated CPU boots as fast as two.
	memory = 384
	cpus   = 1
)

// DiskPrompt and EnrollPrompt ask for the passphrase on the console: those of
// the initramfs, and of the enrolment.
const (
	DiskPrompt   = "Enter passphrase for /dev/vdb: "
	EnrollPrompt = "Passphrase of /dev/vdb: "
)

// Machine is a virtual machine: UEFI firmware, a vTPM and a disk.
type Machine struct {
	Name string
	Dir  string // where its firmware's variables are kept
	TPM  *vm.TPM
	Disk string // path
	// Keep keeps what a boot writes to the disk; else it is forgotten.
	Keep bool
	// More are further disks; what is written to them is forgotten.
	More []string
}

// Boot powers the machine on with the unified kernel image of an ESP. It
// reaches the ports, such as the service's.
func (m Machine) Boot(ctx context.Context, esp string, reach ...int) (*vm.Run, error) {
	disks := []vm.Disk{{Path: m.Disk, Snapshot: !m.Keep}}
	for _, path := range m.More {
		disks = append(disks, vm.Disk{Path: path, Snapshot: true})
	}
	return vm.Machine{
		Name: m.Name, Firmware: vm.OVMF, NVRAM: filepath.Join(m.Dir, m.Name+".nvram"), TPM: m.TPM, ESP: esp,
		Memory: memory, CPUs: cpus, Reach: reach, Disks: disks,
	}.Start(ctx)
}

// Unlock types the passphrase at the initramfs's prompt.
func Unlock(ctx context.Context, run *vm.Run, passphrase secret.Bytes) error {
	return run.Answer(ctx, DiskPrompt, passphrase)
}
