package kms

import (
	"context"
	"fmt"
	"time"

	"keywright.dev/kms/audit"
)

// ActionRetireMeasurement is the action of retiring a measurement.
const ActionRetireMeasurement = "measurement.retire"

const (
	// MaxRetireAfter bounds the good boots after which a measurement is retired.
	MaxRetireAfter = 10
	// listedHolders bounds the machines that a refusal names.
	listedHolders = 5
)

// Hold asks what keeps a measurement of a group from being retired after so many
// good boots of newer ones.
type Hold struct {
	Group    string
	Digest   [32]byte
	Approved time.Time
	Boots    int // 1 to [MaxRetireAfter]
	Limit    int // of the machines to name
}

// Holding is what keeps a measurement from being retired.
type Holding struct {
	// Active tells that the group has an active machine. Without one nothing is known
	// to be newer and good.
	Active bool
	// Machines are ids of active machines of the group, ordered: those that had it in
	// their last good boot or announced it for the next one, and those whose last
	// boots were not all good ones of measurements that were approved later.
	Machines []string
}

// Free tells whether nothing does.
func (h *Holding) Free() bool { return h.Active && len(h.Machines) == 0 }

// settle counts the running boot as a good one, once: the system that it started
// runs and announces its next boots. That keys were released shows nothing, for a
// kernel that crashes behind that gets them again and again. approved is when the
// measurement was that it had; zero where it is not, but a policy lets it boot.
func (m *Machine) settle(approved time.Time) {
	if !m.Announced.Before(m.LastRelease) {
		return
	}
	floors := []time.Time{approved}
	for _, f := range m.Floors[:min(len(m.Floors), MaxRetireAfter-1)] {
		if approved.Before(f) {
			f = approved
		}
		floors = append(floors, f)
	}
	m.Floors = floors
}

// approvedAt is when a measurement was approved; zero where it is not.
func approvedAt(rows []Measurement, digest [32]byte) time.Time {
	if known := findMeasurement(rows, digest); known != nil && known.Status == MeasurementApproved {
		return known.Approved
	}
	return time.Time{}
}

// RetireMeasurement takes the approval of a measurement away that newer ones took
// the place of: where each active machine of the group had so many good boots of
// those that were approved later, and none without. A machine that boots it all
// the same is refused, until an operator approves it again.
func (s *Service) RetireMeasurement(ctx context.Context, by Operator, ref, group string, boots int) (*Measurement, error) {
	if boots < 1 || boots > MaxRetireAfter {
		return nil, usage("a measurement is retired after 1 to %d good boots of newer ones", MaxRetireAfter)
	}
	found, err := s.FindMeasurement(ctx, ref, group)
	if err != nil {
		return nil, err
	}
	hold := Hold{Group: found.Group, Digest: found.Digest, Approved: found.Approved, Boots: boots, Limit: listedHolders + 1}
	key := Key{Group: found.Group, Measurements: [][32]byte{found.Digest}, Hold: &hold}
	retired := *found
	err = s.change(ctx, by, key, func(state State) (Outcome, error) {
		row := findMeasurement(state.Measurements, found.Digest)
		if err := mayRetire(row, &hold, &state.Holding); err != nil {
			return Outcome{}, err
		}
		retired = *row
		retired.Status = MeasurementRetired
		d := by.draft(ActionRetireMeasurement, "", "measurement/"+hexDigest(row.Digest))
		d.fact("group", "", row.Group)
		d.fact("status", string(row.Status), string(retired.Status))
		d.fact("boots", "", fmt.Sprint(boots))
		return s.entered(Outcome{Measurements: []Measurement{retired}}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("retiring measurement/%s: %w", hexDigest(found.Digest), err)
	}
	return &retired, nil
}

func mayRetire(row *Measurement, hold *Hold, holding *Holding) error {
	switch {
	case row == nil:
		return ErrNotFound
	case row.Status != MeasurementApproved:
		return disallow("it is %s: only what is approved can be retired", row.Status)
	case !row.Approved.Equal(hold.Approved):
		return disallow("it was approved anew meanwhile")
	case !holding.Active:
		return disallow("group %s has no active machine, so that no newer one has shown to be good", hold.Group)
	case len(holding.Machines) > 0:
		return disallow("not every active machine of group %s had its last %d boots with newer measurements, and announces another for the next one: %s",
			hold.Group, hold.Boots, holders(holding.Machines))
	default:
		return nil
	}
}

// holders lists machines, of which one more than are listed says that there are more.
func holders(ids []string) (text string) {
	for i, id := range ids[:min(len(ids), listedHolders)] {
		if i > 0 {
			text += ", "
		}
		text += "machine/" + id
	}
	if len(ids) > listedHolders {
		text += " and more"
	}
	return text
}

// unapproved says of a measurement that it is not approved, or not any more.
func unapproved(rows []Measurement, digest [32]byte, group string) string {
	if known := findMeasurement(rows, digest); known != nil && known.Status == MeasurementRetired {
		return fmt.Sprintf("was retired in group %s, where newer ones took its place", group)
	}
	return fmt.Sprintf("is not approved for group %s", group)
}
