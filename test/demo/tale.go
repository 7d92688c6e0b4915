package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"keywright.dev/kms/secret"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
)

const (
	name  = "web-17"
	motto = "hello from the encrypted root of " + name
	// patience is for the client; the demo cuts the power at its first refusal.
	patience = 5 * time.Minute
	evil     = "init=/bin/sh"
)

// tale is the story and what has come of it so far.
type tale struct {
	narrator
	bin, dir string

	programs   e2e.Programs
	service    *e2e.Service
	machine    e2e.Machine
	passphrase secret.Bytes
	ekHash     string
	later      *errgroup.Group // makes what later steps need
	other      *vm.TPM
}

func (t *tale) path(name string) string { return filepath.Join(t.dir, name) }

// tell tells the whole story.
func (t *tale) tell(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		t.startService, t.firstBoot, t.approve, t.unlocks, t.alteredCommandLine, t.movedDisk, t.revoked, t.verifyLog,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

// end ends what runs. The context of the tale is cancelled by then.
func (t *tale) end() {
	if t.later != nil {
		_ = t.later.Wait() // its error was told, or came with the cancelling
	}
	if t.service != nil {
		t.service.Stop()
	}
	t.passphrase.Wipe()
}

func (t *tale) startService(ctx context.Context) error {
	return t.step("The key service starts", func() ([]string, error) {
		var err error
		if t.programs, err = e2e.ProgramsIn(t.bin); err != nil {
			return nil, err
		}
		t.service, err = e2e.ServiceConfig{Program: t.programs.Service, Dir: t.dir}.Start(ctx)
		if err != nil {
			return nil, err
		}
		return []string{
			"$ keywright server",
			"  guests connect to  " + t.service.URL,
			"  service key        " + t.service.Key,
			"Both go into the machine's kernel image: it will believe no other service.",
		}, nil
	})
}

func (t *tale) firstBoot(ctx context.Context) error {
	err := t.step("A machine is made: encrypted disk, vTPM, unified kernel image", func() ([]string, error) {
		if err := t.makeMachine(ctx); err != nil {
			return nil, err
		}
		t.prepareLater(ctx)
		return []string{"The only way into the disk is the installer's passphrase."}, nil
	})
	if err != nil {
		return err
	}
	return t.step("First boot: somebody types the passphrase, then enrols the machine", func() ([]string, error) {
		return t.enroll(ctx)
	})
}

// makeMachine makes what a hypervisor and an installer make.
func (t *tale) makeMachine(ctx context.Context) error {
	text := make([]byte, 16)
	if _, err := rand.Read(text); err != nil {
		return err
	}
	t.passphrase = secret.New([]byte(hex.EncodeToString(text)))
	tpm, err := vm.NewTPM(t.dir, "tpm")
	if err != nil {
		return err
	}
	t.machine = e2e.Machine{Name: name, Dir: t.dir, TPM: tpm, Disk: t.path("disk"), Keep: true}
	system := e2e.System{Unlock: t.programs.Unlock, Server: t.service.URL, Key: t.service.Key, Name: name, Motto: motto}
	volume, err := system.WriteDisk(ctx, t.machine.Disk, t.passphrase)
	if err != nil {
		return err
	}
	image := e2e.Image{
		Unlock: t.programs.Unlock, Server: t.service.URL, Key: t.service.Key, Volume: volume, Deadline: patience,
	}
	if err := image.WriteInitrd(t.path("initrd")); err != nil {
		return err
	}
	return e2e.WriteESP(ctx, t.path("esp"), t.path("initrd"), vm.DefaultCmdline)
}

// prepareLater makes, while the machine boots, what the attacks need.
func (t *tale) prepareLater(ctx context.Context) {
	t.later, ctx = errgroup.WithContext(ctx)
	t.later.Go(func() error {
		return e2e.WriteESP(ctx, t.path("esp-evil"), t.path("initrd"), vm.DefaultCmdline+" "+evil)
	})
	t.later.Go(func() error {
		ek, err := t.machine.TPM.EK()
		t.ekHash = ek.MachineID()
		return err
	})
	t.later.Go(func() error {
		var err error
		t.other, err = vm.NewTPM(t.dir, "tpm-other")
		return err
	})
}

// enroll goes through the first boot.
func (t *tale) enroll(ctx context.Context) ([]string, error) {
	run, err := t.machine.Boot(ctx, t.path("esp"), t.service.Port())
	if err != nil {
		return nil, err
	}
	defer run.Kill()
	refusal, err := run.Expect(ctx, "keywright KW-")
	if err != nil {
		return nil, err
	}
	if err := run.Answer(ctx, e2e.DiskPrompt, t.passphrase); err != nil {
		return nil, err
	}
	if err := run.Answer(ctx, e2e.EnrollPrompt, t.passphrase); err != nil {
		return nil, err
	}
	slot, err := run.Expect(ctx, "volume  ", "enrolment failed")
	if err != nil {
		return nil, err
	}
	if _, err := run.Expect(ctx, "system: enrolled"); err != nil {
		return nil, err
	}
	return []string{
		console(refusal),
		"$ keywright-unlock enroll --name " + name + " --server … --service-key … --uki /boot/efi/EFI/BOOT/BOOTX64.EFI",
		"  " + strings.TrimSpace(slot),
		"The disk has a keyslot for boots and one for a recovery key now. The passphrase stays. What the next boot",
		"will measure was computed from the kernel image. No boot gets the key before an operator approves.",
	}, run.Wait(ctx)
}

func console(line string) string { return "console: " + line }

func (t *tale) approve(ctx context.Context) error {
	return t.step("The operator approves machine and measurement, with the EK hash the hypervisor shows", func() ([]string, error) {
		if err := t.later.Wait(); err != nil {
			return nil, err
		}
		told, err := t.operate(ctx, "machine", "approve", name, "--ek-hash", t.ekHash)
		return append(told, "The hash says that the TPM which enrolled is the one that this hypervisor gave to "+name+"."), err
	})
}

// operate runs a command of the operator's.
func (t *tale) operate(ctx context.Context, args ...string) ([]string, error) {
	output, err := t.service.Operate(ctx, args...)
	return typed("keywright "+strings.ReplaceAll(strings.Join(args, " "), t.dir+"/", ""), output), err
}

func (t *tale) unlocks(ctx context.Context) error {
	return t.step("The machine boots by itself", func() ([]string, error) {
		run, err := t.machine.Boot(ctx, t.path("esp"), t.service.Port())
		if err != nil {
			return nil, err
		}
		defer run.Kill()
		var told []string
		for _, marker := range []string{"keywright: opened", "system: "} {
			line, err := run.Expect(ctx, marker, "KW-")
			if err != nil {
				return told, err
			}
			told = append(told, console(line))
			if !strings.Contains(line, marker) {
				return told, fmt.Errorf("the machine did not unlock: %s", line)
			}
		}
		return append(told, "Nobody typed anything: the TPM proved what was booted, the service released the key to that boot alone."), nil
	})
}
