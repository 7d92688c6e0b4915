package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Firmware is what a machine starts with.
type Firmware int

const (
	// SeaBIOS boots Kernel and Initrd directly and measures neither: for tests
	// of the protocol, worthless for those of measurements.
	SeaBIOS Firmware = iota
	// OVMF is UEFI; it boots the ESP, or Kernel and Initrd, and measures them.
	OVMF
	// OVMFSecureBoot is OVMF with Secure Boot on, trusting [SnakeoilKey].
	OVMFSecureBoot
	// OVMFMicrosoft is OVMF with Secure Boot on, trusting Microsoft's keys, as
	// shops sell machines.
	OVMFMicrosoft
)

// firmwareFiles are pflash images of Debian's ovmf package.
type firmwareFiles struct {
	code, vars string
}

func (f Firmware) files() firmwareFiles {
	const dir = "/usr/share/OVMF/"
	switch f {
	case OVMF:
		return firmwareFiles{dir + "OVMF_CODE_4M.fd", dir + "OVMF_VARS_4M.fd"}
	case OVMFSecureBoot:
		return firmwareFiles{dir + "OVMF_CODE_4M.secboot.fd", dir + "OVMF_VARS_4M.snakeoil.fd"}
	case OVMFMicrosoft:
		return firmwareFiles{dir + "OVMF_CODE_4M.secboot.fd", dir + "OVMF_VARS_4M.ms.fd"}
	default:
		return firmwareFiles{}
	}
}

// secure tells whether Secure Boot is on.
func (f Firmware) secure() bool { return f == OVMFSecureBoot || f == OVMFMicrosoft }

// Defaults of a Machine.
const (
	defaultMemory = 768
	defaultCPUs   = 2
	// DefaultCmdline is a kernel command line for a serial console; a guest
	// that panics ends. An emulated CPU on a busy host is too slow for the
	// kernel's test of its timer, after which it would panic.
	DefaultCmdline = "console=ttyS0 quiet panic=-1 no_timer_check"
)

// Machine describes a virtual machine. Its zero value lacks only something to
// boot. With firmware that measures, everything but Disks, TPM and Reach can
// move a PCR: keep them for boots that shall be equal.
type Machine struct {
	Name     string // in errors
	Memory   int    // MiB; 0: 768
	CPUs     int    // 0: 2
	Firmware Firmware

	// Either a kernel with an initrd, or an ESP to boot from, or the first disk.
	Kernel    string // path of vmlinuz
	Initrd    string // path
	Cmdline   string // "": [DefaultCmdline]
	ESP       string // path of a disk image; never written to
	BootFirst bool

	// NVRAM is the path of OVMF's variables, made from the package's when it
	// is not there. Only OVMF has it, and then must.
	NVRAM string
	Disks []Disk
	TPM   *TPM // nil: none

	// Reach are the TCP ports of this host's loopback that the guest reaches
	// at 10.0.2.2. Nothing else answers it.
	Reach []int
	// Network is what its network card finds at first.
	Network Network
	// Clock is what the guest's clock says at first; zero: this host's time.
	Clock time.Time

	// Patience is how long the console may be silent while something is
	// awaited; 0: what a boot needs on a busy host.
	Patience time.Duration
	// Accel is how the guest's CPU is run; "": what [Accel] says.
	Accel Accelerator
}

// Disk is a raw disk image.
type Disk struct {
	Path     string
	Snapshot bool   // forget what the guest writes
	Serial   string // at most 20 characters; may be empty
}

// patience returns Patience or its default.
func (m Machine) patience() time.Duration {
	switch {
	case m.Patience > 0:
		return m.Patience
	case m.Accel == KVM:
		return 30 * time.Second
	default:
		return 180 * time.Second
	}
}

func (m Machine) check() error {
	switch {
	case m.starts() != 1:
		return errors.New("it must have one of a kernel, an ESP and a first disk to boot from")
	case m.BootFirst && len(m.Disks) == 0:
		return errors.New("it has no disk to boot from")
	case m.Firmware == SeaBIOS && m.Kernel == "":
		return errors.New("SeaBIOS cannot boot an ESP or a disk: use OVMF")
	case (m.Firmware == SeaBIOS) != (m.NVRAM == ""):
		return errors.New("OVMF needs the path of its NVRAM, SeaBIOS has none")
	}
	for _, port := range m.Reach {
		if port <= 0 || port > 65535 {
			return fmt.Errorf("%d is no port to reach", port)
		}
	}
	return nil
}

// starts counts what the machine could boot from.
func (m Machine) starts() int {
	n := 0
	for _, has := range []bool{m.Kernel != "", m.ESP != "", m.BootFirst} {
		if has {
			n++
		}
	}
	return n
}

// prepare makes the machine's NVRAM when it is not there.
func (m Machine) prepare() error {
	if m.NVRAM == "" {
		return nil
	}
	if _, err := os.Stat(m.NVRAM); err == nil {
		return nil
	}
	vars, err := os.ReadFile(m.Firmware.files().vars)
	if err != nil {
		return fmt.Errorf("reading OVMF's variables: %w: run test/setup", err)
	}
	return os.WriteFile(m.NVRAM, vars, 0o600)
}

// Start boots the machine. The run ends with the guest, with [Run.Kill], or
// when ctx is cancelled; its processes end with it.
func (m Machine) Start(ctx context.Context) (*Run, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", m.Name, err)
	}
	if m.Accel == "" {
		chosen, err := Accel(ctx)
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", m.Name, err)
		}
		m.Accel = chosen.Accelerator
	}
	if err := m.prepare(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", m.Name, err)
	}
	run, err := m.launch(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", m.Name, err)
	}
	return run, nil
}

// QEMU's descriptors of its monitor and of swtpm's control channel.
const (
	monitorFD = 3
	tpmFD     = 4
)

// netdev is the guest's network, to QEMU.
const netdev = "net"

// args returns QEMU's arguments.
func (m Machine) args() []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
		// It starts when the monitor says so.
		"-S", "-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorFD), "-mon", "chardev=monitor,mode=control",
		"-chardev", "null,id=" + nowhere,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-m", fmt.Sprint(orDefault(m.Memory, defaultMemory)),
		"-smp", fmt.Sprint(orDefault(m.CPUs, defaultCPUs)),
		"-object", "rng-random,filename=/dev/urandom,id=random",
		"-device", "virtio-rng-pci,rng=random",
	}
	args = append(args, m.Accel.args()...)
	args = append(args, m.firmwareArgs()...)
	args = append(args, m.bootArgs()...)
	for i, disk := range m.Disks {
		options := ""
		if i == 0 && m.BootFirst {
			options = ",bootindex=1"
		}
		args = append(args, diskArgs(fmt.Sprintf("disk%d", i), disk, options)...)
	}
	args = append(args, m.networkArgs()...)
	if !m.Clock.IsZero() {
		args = append(args, "-rtc", "base="+m.Clock.UTC().Format("2006-01-02T15:04:05"))
	}
	if m.TPM != nil {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=swtpm,fd=%d", tpmFD),
			"-tpmdev", "emulator,id=tpm,chardev=swtpm", "-device", "tpm-crb,tpmdev=tpm")
	}
	return args
}

func (m Machine) firmwareArgs() []string {
	smm := "off"
	if m.Firmware.secure() {
		smm = "on"
	}
	args := []string{"-machine", "q35,smm=" + smm}
	if m.Firmware == SeaBIOS {
		return args
	}
	if m.Firmware.secure() {
		// Only code in SMM may write variables, and no S3 resume goes round it.
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on",
			"-global", "ICH9-LPC.disable_s3=1")
	}
	return append(args,
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+m.Firmware.files().code,
		"-drive", "if=pflash,unit=1,format=raw,file="+escape(m.NVRAM))
}

func (m Machine) bootArgs() []string {
	switch {
	case m.ESP != "":
		return diskArgs("esp", Disk{Path: m.ESP, Snapshot: true}, ",bootindex=1")
	case m.BootFirst:
		return nil
	}
	cmdline := m.Cmdline
	if cmdline == "" {
		cmdline = DefaultCmdline
	}
	return []string{"-kernel", m.Kernel, "-initrd", m.Initrd, "-append", cmdline}
}

// diskArgs attaches a disk. The host's page cache outlives a killed QEMU, so
// that a power cut loses what the guest held back, and no more.
func diskArgs(id string, d Disk, options string) []string {
	if d.Serial != "" {
		options += ",serial=" + escape(d.Serial)
	}
	snapshot := "off"
	if d.Snapshot {
		snapshot = "on"
	}
	return []string{
		"-drive", fmt.Sprintf("if=none,id=%s,format=raw,cache=unsafe,snapshot=%s,file=%s", id, snapshot, escape(d.Path)),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=%s%s", id, options),
	}
}

// networkArgs makes a network in which only 10.0.2.2 answers, on the ports to
// reach. QEMU forwards to no address that it holds itself, so it moves away to
// 10.0.2.1; each connection is carried by one busybox nc.
func (m Machine) networkArgs() []string {
	backend := new(strings.Builder)
	backend.WriteString("user,id=" + netdev + ",ipv6=off,restrict=on,host=10.0.2.1")
	for _, port := range m.Reach {
		fmt.Fprintf(backend, ",guestfwd=tcp:10.0.2.2:%d-cmd:%s nc 127.0.0.1 %d", port, busybox, port)
	}
	return []string{"-netdev", backend.String(), "-device", "virtio-net-pci,romfile=,netdev=" + netdev}
}

// escape doubles the commas that end an option's value for QEMU.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

func orDefault(value, byDefault int) int {
	if value == 0 {
		return byDefault
	}
	return value
}
