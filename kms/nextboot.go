package kms

import (
	"context"
	"fmt"
	"time"
)

// Verdict says whether a machine's next boot will get its keys.
type Verdict string

// The verdicts.
const (
	VerdictYes     Verdict = "yes"
	VerdictNo      Verdict = "no"
	VerdictUnknown Verdict = "unknown" // the machine announced no boot, or none that its files tell of
)

// NextBoot is what is to be expected of a machine's next boot: of the one that
// its boot loader starts where nobody chooses, as it was announced last.
type NextBoot struct {
	Machine   string    // id
	Announced time.Time // zero before the machine announced any while it ran
	Verdict   Verdict
	Reason    Reason // of a no
	Detail    string // for people; empty with yes
}

// foretell holds what a machine announced against what is approved now.
func foretell(m *Machine, a Announcement, now time.Time) NextBoot {
	refused := func(reason Reason, detail string) NextBoot {
		return NextBoot{Verdict: VerdictNo, Reason: reason, Detail: detail}
	}
	if refusal := judgeStatus(m.Status); refusal != nil {
		return refused(refusal.Reason, refusal.Detail)
	}
	switch {
	case m.Expected == [32]byte{}:
		return NextBoot{Verdict: VerdictUnknown, Detail: "it announced no boot"}
	case a.Measurement == MeasurementRetired:
		return refused(ReasonMeasurement, fmt.Sprintf("the measurement announced was retired in group %s, where newer ones took its place", m.Group))
	case a.Measurement != MeasurementApproved:
		return refused(ReasonMeasurement, fmt.Sprintf("the measurement announced is not approved for group %s", m.Group))
	case a.Platform == nil || !a.Platform.Approved:
		return refused(ReasonPlatform, "the platform claims announced are not approved for the machine")
	case !a.Platform.approvedFor(m, now):
		return refused(ReasonPlatform, "what the machine staged has expired: it stages anew once it runs with its keys")
	case m.Unforeseen:
		return NextBoot{Verdict: VerdictUnknown, Detail: m.Fault}
	case m.Fault != "":
		return refused(ReasonVolume, m.Fault)
	default:
		return NextBoot{Verdict: VerdictYes}
	}
}

// NextBoots foretells the next boots of machines, in their order.
func (s *Service) NextBoots(ctx context.Context, machines []Machine) ([]NextBoot, error) {
	rows, err := s.Store.Announcements(ctx, machines)
	if err != nil {
		return nil, fmt.Errorf("foretelling next boots: %w", err)
	}
	now := s.Clock()
	list := make([]NextBoot, 0, len(machines))
	for i := range machines {
		next := foretell(&machines[i], rows[i], now)
		next.Machine, next.Announced = machines[i].ID, machines[i].Announced
		list = append(list, next)
	}
	return list, nil
}

// scanned bounds the machines that one call of [Service.MachinesByNextBoot]
// looks at.
const scanned = 2000

// MachinesByNextBoot returns machines that the filter selects and whose next
// boot has one of the verdicts, with it, after the id that is given; at most
// limit of them. It ends early on a large fleet: next is the id to go on after,
// empty at the end.
func (s *Service) MachinesByNextBoot(ctx context.Context, filter MachineFilter, wanted func(Verdict) bool, after string, limit int) (
	machines []Machine, boots []NextBoot, next string, err error,
) {
	return s.scanNextBoots(ctx, filter, wanted, after, limit, scanned)
}

// scanNextBoots looks at so many machines.
func (s *Service) scanNextBoots(ctx context.Context, filter MachineFilter, wanted func(Verdict) bool, after string, limit, scan int) (
	machines []Machine, boots []NextBoot, next string, err error,
) {
	page, err := s.Store.Machines(ctx, filter, after, scan)
	if err != nil {
		return nil, nil, "", fmt.Errorf("listing machines by their next boots: %w", err)
	}
	foretold, err := s.NextBoots(ctx, page)
	if err != nil {
		return nil, nil, "", err
	}
	for i := range page {
		if !wanted(foretold[i].Verdict) {
			continue
		}
		if len(machines) == limit {
			return machines, boots, machines[limit-1].ID, nil
		}
		machines, boots = append(machines, page[i]), append(boots, foretold[i])
	}
	if len(page) == scan {
		next = page[len(page)-1].ID
	}
	return machines, boots, next, nil
}
