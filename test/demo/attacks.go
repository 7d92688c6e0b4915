package main

import (
	"context"
	"fmt"
	"strings"

	"keywright.dev/test/e2e"
)

// refused boots a machine whose changes to the disk are forgotten, and cuts its
// power when the service has refused it with the code.
func (t *tale) refused(ctx context.Context, m e2e.Machine, esp, code string) ([]string, error) {
	m.Keep = false
	run, err := m.Boot(ctx, esp, t.service.Port())
	if err != nil {
		return nil, err
	}
	defer run.Kill()
	line, err := run.Expect(ctx, "keywright KW-", "keywright: opened")
	if err != nil {
		return nil, err
	}
	told := []string{console(line)}
	if !strings.Contains(line, "refused by") || !strings.Contains(line, code) {
		return told, fmt.Errorf("the console shows %q, want a refusal for %s", line, code)
	}
	return told, nil
}

func (t *tale) alteredCommandLine(ctx context.Context) error {
	return t.step("Somebody adds "+evil+" to the kernel's command line: refused", func() ([]string, error) {
		told, err := t.refused(ctx, t.machine, t.path("esp-evil"), "measurement")
		if err != nil {
			return told, err
		}
		explained, err := t.operate(ctx, "explain", "machine/"+name)
		return append(told, explained...), err
	})
}

func (t *tale) movedDisk(ctx context.Context) error {
	return t.step("The disk is moved to a machine with another vTPM: refused", func() ([]string, error) {
		thief := t.machine
		thief.Name, thief.TPM = "thief", t.other
		told, err := t.refused(ctx, thief, t.path("esp"), "machine_unknown")
		return append(told, "Same disk, same kernel image; but a key is bound to one TPM."), err
	})
}

func (t *tale) revoked(ctx context.Context) error {
	return t.step("The machine is revoked: refused", func() ([]string, error) {
		told, err := t.operate(ctx, "revoke", "machine/"+name, "--reason", "demo")
		if err != nil {
			return told, err
		}
		refusal, err := t.refused(ctx, t.machine, t.path("esp"), "machine_revoked")
		return append(told, refusal...), err
	})
}

func (t *tale) verifyLog(ctx context.Context) error {
	return t.step("The audit log is exported, and verified without the service", func() ([]string, error) {
		key, err := t.service.LogKey(ctx)
		if err != nil {
			return nil, err
		}
		export := t.path("audit.log")
		told, err := t.operate(ctx, "audit", "export", "--output", export)
		if err != nil {
			return told, err
		}
		t.service.Stop()
		verified, err := t.operate(ctx, "audit", "verify", export, "--key", key)
		return append(append(told, verified...), "Each release, refusal and approval of web-17 is in it; what came before a valid signature is counted."), err
	})
}
