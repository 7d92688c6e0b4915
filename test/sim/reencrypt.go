package sim

import (
	"context"
	"crypto/sha256"
	"fmt"

	"keywright.dev/kms/exchange"
)

// mark is that of a keyslot that was made for what the volume is now.
func (v *Volume) mark(what string) string {
	sum := sha256.Sum256([]byte(what + string(v.VolumeKeyDigest)))
	return fmt.Sprintf("%x", sum[:4])
}

// AddRecovery gives a volume a keyslot for its next recovery key.
func (v *Volume) AddRecovery(got *exchange.ReleasedSecret) {
	if got.RecoveryVersion > 0 && (v.NewRecovery == nil || v.NewRecovery.Version != got.RecoveryVersion) {
		v.NewRecovery = &Keyslot{Slot: 6, Version: got.RecoveryVersion, Key: got.Recovery.Clone()}
	}
}

// LoseKeyslots leaves the keyslot for boots, and that of the new recovery key, alone.
func (v *Volume) LoseKeyslots() {
	v.RecoveryGone = true
	v.Slots = nil
	for _, own := range v.Own {
		v.Slots = append(v.Slots, exchange.LUKSSlot{ID: own.Slot, KDF: "pbkdf2", Priority: 1, Mark: fmt.Sprintf("%08x", own.Version)})
	}
}

// BeginReencryption puts the header under reencryption.
func (v *Volume) BeginReencryption() {
	becomes := sha256.Sum256(append([]byte("becomes"), v.Identity[:]...))
	v.Becomes, v.Identity = becomes[:], exchange.UnderReencryption(v.Identity, becomes)
}

// EndReencryption makes the header a plain one, in which each keyslot was made anew.
func (v *Volume) EndReencryption() {
	v.Identity, v.Becomes = [32]byte(v.Becomes), nil
	v.VolumeKeyDigest = v.Identity[:8]
	for i := range v.Own {
		v.Own[i].Slot += 8
	}
	if v.NewRecovery != nil {
		v.NewRecovery.Slot += 8
	}
	v.Slots = []exchange.LUKSSlot{{ID: v.Own[0].Slot, KDF: "pbkdf2", Priority: 1, Mark: v.mark("own")}}
}

// Reencrypt does what an agent does about an order of a reencryption, from wherever it
// was cut.
func (m *Machine) Reencrypt(ctx context.Context, g RekeyGuest, volume int) error {
	got, err := m.AskRekey(ctx, g, volume)
	if err == nil && got.Reencrypt == nil {
		if err = m.FinishRekey(ctx, g, volume, got); err == nil {
			got, err = m.AskRekey(ctx, g, volume)
		}
	}
	if err != nil {
		return err
	}
	if got.Reencrypt == nil {
		return fmt.Errorf("nothing is to be reencrypted: %+v", got)
	}
	return m.FinishReencryption(ctx, g, volume, got)
}

// FinishReencryption goes on with one whose rekey is over.
func (m *Machine) FinishReencryption(ctx context.Context, g RekeyGuest, volume int, got *exchange.ReleasedSecret) error {
	v := &m.Volumes[volume]
	if v.Identity == got.Reencrypt.From {
		v.AddRecovery(got)
		if err := m.ReportStage(ctx, g, volume, exchange.StageReady, exchange.RekeyReady); err != nil {
			return err
		}
		v.LoseKeyslots()
		v.BeginReencryption()
	}
	if len(v.Becomes) > 0 {
		if err := m.ReportStage(ctx, g, volume, exchange.StageBegun, exchange.RekeyReencrypting); err != nil {
			return err
		}
		if err := m.ReportStage(ctx, g, volume, exchange.StageProgress, exchange.RekeyReencrypting); err != nil {
			return err
		}
		v.EndReencryption()
	}
	return m.ReportStage(ctx, g, volume, exchange.StageDone, exchange.RekeyFinished)
}

// ReportStage reports how far a reencryption has come, and demands an answer.
func (m *Machine) ReportStage(ctx context.Context, g RekeyGuest, volume int, stage exchange.Stage, want exchange.RekeyStatus) error {
	details := exchange.RekeyedDetails{Version: m.Volumes[volume].Own[0].Version, Reencryption: stage}
	if stage == exchange.StageProgress {
		details.Progress = &exchange.Progress{Done: 1 << 30, Total: 4 << 30, Rate: 1 << 20, Left: 3 << 10}
	}
	answer, err := m.Report(ctx, g, volume, details)
	if err == nil && answer.Status != want {
		err = fmt.Errorf("the report %s was answered with %+v", stage, answer)
	}
	return err
}
