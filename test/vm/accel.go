package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Accelerator is how QEMU runs a guest's CPU.
type Accelerator string

const (
	// KVM uses the processor's virtualization.
	KVM Accelerator = "kvm"
	// TCG emulates; it works everywhere.
	TCG Accelerator = "tcg"
)

func (a Accelerator) args() []string {
	if a == KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"}
}

// Acceleration is which accelerator this host's machines use, and why.
type Acceleration struct {
	Accelerator Accelerator
	Reason      string
}

const (
	// accelVariable forces the choice.
	accelVariable = "KEYWRIGHT_VM_ACCEL"
	kvmDevice     = "/dev/kvm"
	// probeLimit is what a guest that runs on a processor stays far below. A
	// KVM that emulates kernels instead takes minutes.
	probeLimit = 10 * time.Second
	probeWord  = "kvm-probe-runs"
)

// Accel returns the accelerator of this host: what KEYWRIGHT_VM_ACCEL says,
// else KVM if a guest really boots with it, else TCG. The probe is made once
// per boot of the host and QEMU; the [Cache] remembers what it found, so that
// no two boots of one policy differ by it.
func Accel(ctx context.Context) (Acceleration, error) {
	switch forced := os.Getenv(accelVariable); forced {
	case "":
	case string(KVM), string(TCG):
		return Acceleration{Accelerator(forced), accelVariable + " says so"}, nil
	default:
		return Acceleration{}, fmt.Errorf("choosing an accelerator: %s is %q, want kvm or tcg", accelVariable, forced)
	}
	device, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return Acceleration{TCG, err.Error()}, nil
	}
	if err := device.Close(); err != nil {
		return Acceleration{TCG, err.Error()}, nil
	}
	return rememberedProbe(ctx)
}

// rememberedProbe returns the probe's result from the cache, or makes it.
func rememberedProbe(ctx context.Context) (Acceleration, error) {
	cache, err := Cache()
	if err != nil {
		return Acceleration{}, err
	}
	key, err := probeKey()
	if err != nil {
		return Acceleration{}, err
	}
	path := filepath.Join(cache, "vm", "accelerator")
	if known, ok := readVerdict(path, key); ok {
		return known, nil
	}
	found, err := probeKVM(ctx)
	if err != nil {
		return Acceleration{}, err
	}
	return found, writeVerdict(path, key, found)
}

// probeKey changes with what can change the probe's result.
func probeKey() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("choosing an accelerator: %w", err)
	}
	info, err := os.Stat("/usr/bin/" + qemu)
	if err != nil {
		return "", fmt.Errorf("choosing an accelerator: %w: run test/setup", err)
	}
	return fmt.Sprintf("%s %d", strings.TrimSpace(string(boot)), info.ModTime().Unix()), nil
}

// readVerdict reads a file of three lines: key, accelerator, reason.
func readVerdict(path, key string) (Acceleration, bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Acceleration{}, false
	}
	lines := strings.Split(string(content), "\n")
	if len(lines) < 3 || lines[0] != key {
		return Acceleration{}, false
	}
	return Acceleration{Accelerator(lines[1]), lines[2]}, true
}

func writeVerdict(path, key string, a Acceleration) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("remembering the accelerator: %w", err)
	}
	reason := strings.ReplaceAll(a.Reason, "\n", " ")
	// Renamed into place, since test programs run at once.
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	content := fmt.Sprintf("%s\n%s\n%s\n", key, a.Accelerator, reason)
	if err := os.WriteFile(temporary, []byte(content), 0o644); err != nil {
		return fmt.Errorf("remembering the accelerator: %w", err)
	}
	return os.Rename(temporary, path)
}

// probeKVM boots a guest under KVM. That it does not come up is a result.
func probeKVM(ctx context.Context) (Acceleration, error) {
	machine, clean, err := probeMachine()
	if err != nil {
		return Acceleration{}, err
	}
	defer clean()
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	err = bootProbe(limited, machine)
	switch {
	case err == nil:
		return Acceleration{KVM, "a guest boots with " + kvmDevice}, nil
	case ctx.Err() != nil:
		return Acceleration{}, fmt.Errorf("probing KVM: %w", ctx.Err())
	case errors.Is(err, ErrEnded):
		return Acceleration{TCG, "QEMU fails with " + kvmDevice + ": " + lastLines(err.Error(), 1)}, nil
	case limited.Err() == nil:
		return Acceleration{}, err
	default:
		return Acceleration{TCG, fmt.Sprintf("with %s no guest boots in %s", kvmDevice, probeLimit)}, nil
	}
}

// bootProbe returns nil once the guest runs.
func bootProbe(ctx context.Context, m Machine) error {
	run, err := m.Start(ctx)
	if err != nil {
		return err
	}
	defer run.Kill()
	if _, err = run.Expect(ctx, probeWord); errors.Is(err, ErrEnded) {
		err = fmt.Errorf("%w: %s", err, run.lastWords())
	}
	return err
}

func probeMachine() (m Machine, clean func(), err error) {
	kernel, err := FindKernel()
	if err != nil {
		return Machine{}, nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-kvm-")
	if err != nil {
		return Machine{}, nil, fmt.Errorf("probing KVM: %w", err)
	}
	initrd := filepath.Join(dir, "initrd")
	script := "#!/bin/busybox sh\necho " + probeWord + "\n"
	if err := (Initramfs{Kernel: kernel, Init: []byte(script)}).Write(initrd); err != nil {
		return Machine{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	m = Machine{Name: "the KVM probe", Kernel: kernel.Image, Initrd: initrd, Accel: KVM}
	return m, func() { _ = os.RemoveAll(dir) }, nil
}
