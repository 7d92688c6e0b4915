package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	// Reboots has the guest's reboot be one, not the end of its run.
	Reboots bool
	// More are further disks; what is written to them is forgotten.
	More []string
}

// Boot powers the machine on with the unified kernel image of an ESP. It
// reaches the ports, such as the service's.
func (m Machine) Boot(ctx context.Context, esp string, reach ...int) (*vm.Run, error) {
	return m.hardware(esp, reach).Start(ctx)
}

// Load has the machine go on where [vm.Run.Save] left it. ESP and ports are what
// they were.
func (m Machine) Load(ctx context.Context, saved, esp string, reach ...int) (*vm.Run, error) {
	hardware := m.hardware(esp, reach)
	hardware.Incoming = saved
	return hardware.Start(ctx)
}

func (m Machine) hardware(esp string, reach []int) vm.Machine {
	disks := []vm.Disk{{Path: m.Disk, Snapshot: !m.Keep}}
	for _, path := range m.More {
		disks = append(disks, vm.Disk{Path: path, Snapshot: true})
	}
	return vm.Machine{
		Name: m.Name, Firmware: vm.OVMF, NVRAM: m.nvram(), TPM: m.TPM, ESP: esp,
		Memory: memory, CPUs: cpus, Reach: reach, Reboots: m.Reboots,
		Disks: disks,
	}
}

func (m Machine) nvram() string { return filepath.Join(m.Dir, m.Name+".nvram") }

// Copy copies all that a hypervisor keeps of a machine that is off: disk,
// firmware's variables and TPM. The copy has another name, in dir.
func (m Machine) Copy(dir, name string) (Machine, error) {
	to := m
	to.Name, to.Dir, to.Disk = name, dir, filepath.Join(dir, name+".disk")
	var err error
	if to.TPM, err = m.TPM.Clone(dir, name+".tpm"); err != nil {
		return Machine{}, err
	}
	return to, errors.Join(copyFile(to.Disk, m.Disk), copyFile(to.nvram(), m.nvram()))
}

func copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copying a machine: %w", err)
	}
	return os.WriteFile(to, content, 0o600)
}

// Unlock types the passphrase at the initramfs's prompt.
func Unlock(ctx context.Context, run *vm.Run, passphrase secret.Bytes) error {
	return run.Answer(ctx, DiskPrompt, passphrase)
}
