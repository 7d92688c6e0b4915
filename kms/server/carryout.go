package server

import (
	"context"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/policy"
	"keywright.dev/rotate"
)

// do asks the policy engine, and does a step.
func (c *carrier) do(ctx context.Context, s *rotate.Step) error {
	service := c.server.Service
	switch s.Kind {
	case rotate.RotateKeyring:
		by, err := c.permitted(kms.ActionRotateKeyring, policy.Keyring{Name: s.Object.Name})
		if err != nil {
			return err
		}
		_, err = service.RotateKeyring(ctx, by, s.Object.Name, c.current[s.Object.Name])
		return err
	case rotate.RewrapKeyring:
		by, err := c.permitted(kms.ActionRewrapKeyring, policy.Keyring{Name: s.Object.Name})
		if err != nil {
			return err
		}
		return c.rewrap(ctx, by, s.Object.Name)
	case rotate.DisableKeyringVersion, rotate.DestroyKeyringVersion:
		return c.retire(ctx, s)
	case rotate.RekeyVolume:
		return c.onVolume(ctx, s, kms.ActionRekey, func(by kms.Operator, v *kms.Volume) error {
			_, err := service.OrderRekey(ctx, by, v, s.Reason, s.AtBoot)
			return err
		})
	case rotate.ReencryptVolume:
		return c.onVolume(ctx, s, kms.ActionReencrypt, func(by kms.Operator, v *kms.Volume) error {
			_, err := service.OrderReencrypt(ctx, by, v, s.Reason)
			return err
		})
	case rotate.DestroySecret:
		return c.onVolume(ctx, s, kms.ActionDestroySecret, func(by kms.Operator, v *kms.Volume) error {
			_, err := service.DestroySecret(ctx, by, v, s.Object.Version, s.Reason)
			return err
		})
	case rotate.RetireMeasurement:
		return c.retireMeasurement(ctx, s)
	default:
		return fmt.Errorf("this version carries out no %s", s.Kind)
	}
}

// permitted asks whether the service may do something by itself. That it may not is no
// entry in the audit log: it would be one more at each time of the schedule.
func (c *carrier) permitted(action string, on policy.Resource) (kms.Operator, error) {
	by := c.by
	who := policy.Operator{ID: string(by.Kind) + "/" + by.ID, Roles: []policy.Role{policy.RoleRotation}}
	decision := c.server.Policy().Operate(who, action, on, policy.Call{Time: c.server.Clock()})
	by.Policies = decision.Policies
	if !decision.Allowed {
		return by, failWith(api.CodeForbidden, "No policy permits the service to do it by itself; a person does it, with keywright rotate run --due.")
	}
	return by, nil
}

// actionOf is the action that a kind of step needs; empty of a kind that is not carried
// out.
func actionOf(kind rotate.Kind) string {
	return map[rotate.Kind]string{
		rotate.RotateKeyring: kms.ActionRotateKeyring, rotate.RewrapKeyring: kms.ActionRewrapKeyring,
		rotate.DisableKeyringVersion: kms.ActionDisableKeyring, rotate.DestroyKeyringVersion: kms.ActionDestroyKeyring,
		rotate.RekeyVolume: kms.ActionRekey, rotate.ReencryptVolume: kms.ActionReencrypt, rotate.DestroySecret: kms.ActionDestroySecret,
		rotate.RetireMeasurement: kms.ActionRetireMeasurement,
	}[kind]
}

// resource is what a step acts on, as policies see it.
func (c *carrier) resource(ctx context.Context, s *rotate.Step) (policy.Resource, error) {
	switch s.Kind {
	case rotate.RekeyVolume, rotate.ReencryptVolume, rotate.DestroySecret:
		_, on, err := c.volume(ctx, s)
		return on, err
	case rotate.RetireMeasurement:
		return policy.Measurement{ID: s.Object.Name, Group: s.Object.Group}, nil
	default:
		return policy.Keyring{Name: s.Object.Name}, nil
	}
}

// retire disables a version of a keyring, or has it destroyed.
func (c *carrier) retire(ctx context.Context, s *rotate.Step) error {
	action := actionOf(s.Kind)
	by, err := c.permitted(action, policy.Keyring{Name: s.Object.Name})
	if err != nil {
		return err
	}
	v, err := c.server.Service.FindKeyringVersion(ctx, fmt.Sprintf("%s@%d", s.Object.Name, s.Object.Version))
	if err != nil {
		return err
	}
	if action == kms.ActionDisableKeyring {
		_, err = c.server.Service.DisableKeyring(ctx, by, v)
	} else {
		_, err = c.server.Service.ScheduleDestroy(ctx, by, v, s.Wait)
	}
	return err
}

// onVolume asks the policy engine about a volume, and acts on it.
func (c *carrier) onVolume(ctx context.Context, s *rotate.Step, action string, act func(kms.Operator, *kms.Volume) error) error {
	v, on, err := c.volume(ctx, s)
	if err != nil {
		return err
	}
	by, err := c.permitted(action, on)
	if err != nil {
		return err
	}
	return act(by, v)
}

func (c *carrier) volume(ctx context.Context, s *rotate.Step) (*kms.Volume, policy.Resource, error) {
	found, err := c.server.Store.FindVolumes(ctx, s.Object.Name, 1)
	if err != nil {
		return nil, nil, err
	}
	if len(found) == 0 || found[0].ID != s.Object.Name {
		return nil, nil, &kms.NotFoundError{Kind: "volume", Ref: s.Object.Name}
	}
	v := &found[0]
	m, err := c.server.Store.Machine(ctx, v.Machine)
	if err != nil {
		return nil, nil, err
	}
	return v, policy.Volume{ID: v.ID, Machine: policyMachine(m)}, nil
}

func (c *carrier) retireMeasurement(ctx context.Context, s *rotate.Step) error {
	on := policy.Measurement{ID: s.Object.Name, Group: s.Object.Group}
	by, err := c.permitted(kms.ActionRetireMeasurement, on)
	if err != nil {
		return err
	}
	_, err = c.server.Service.RetireMeasurement(ctx, by, s.Object.Name, s.Object.Group, s.Boots)
	return err
}

// rewrap goes through the pages until a pass finds nothing more to do.
func (c *carrier) rewrap(ctx context.Context, by kms.Operator, keyring string) error {
	for {
		moved, failed, remaining := 0, 0, int64(0)
		for after := ""; ; {
			page, err := c.server.Service.RewrapPage(ctx, by, keyring, after, rewrapPage, c.server.guests.yielding())
			if err != nil {
				return err
			}
			moved, failed, remaining = moved+page.Done, failed+len(page.Failed), page.Remaining
			if after = page.Next; after == "" {
				break
			}
		}
		if moved == 0 || remaining == int64(failed) {
			return unopened(keyring, failed)
		}
	}
}

func unopened(keyring string, failed int) error {
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d secrets or keys do not open: keywright keyring rewrap %s names them", failed, keyring)
}
