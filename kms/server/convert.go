package server

import (
	"encoding/hex"
	"slices"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
)

// pageOf turns a list of at most limit rows into a page.
func pageOf[Row, Item any](rows []Row, limit int, item func(*Row) Item, key func(*Row) string) api.Page[Item] {
	page := api.Page[Item]{Items: make([]Item, 0, len(rows))}
	for i := range rows {
		page.Items = append(page.Items, item(&rows[i]))
	}
	if len(rows) > 0 && len(rows) >= limit {
		page.Next = key(&rows[len(rows)-1])
	}
	return page
}

// hexOf returns a digest in hex, and nothing for the zero digest.
func hexOf(digest [32]byte) string {
	if digest == ([32]byte{}) {
		return ""
	}
	return hex.EncodeToString(digest[:])
}

func machineOf(m *kms.Machine) api.Machine {
	return api.Machine{
		ID: m.ID, Name: m.Name, Proposed: m.Proposed, Group: m.Group, Status: string(m.Status), Committed: m.Committed,
		// The id of a machine is the hash of its EK.
		EKHash: m.ID, EKTrust: m.Trust, Tier: m.Tier, ResetCount: m.Counters.ResetCount,
		Created: m.Created, Approved: stamp(m.Approved), ApprovedBy: m.ApprovedBy,
		LastRelease: stamp(m.LastRelease), LastRefusal: stamp(m.LastRefusal),
	}
}

func volumeOf(v *kms.Volume) api.Volume {
	return api.Volume{
		ID: v.ID, Machine: v.Machine, UUID: v.UUID, Status: string(v.Status),
		Identity: hex.EncodeToString(v.Identity), Keyring: v.Keyring, Created: v.Created, Alarms: alarmsOfVolume(v),
	}
}

func secretOf(s *kms.Secret) api.SecretVersion {
	return api.SecretVersion{
		Purpose: s.Purpose, AgeCopy: s.AgeCopy != "", Disclosed: stamp(s.Disclosed), Version: s.Version, Status: string(s.Status), KeyringVersion: s.KeyringVersion, Created: s.Created,
	}
}

// reportOf reads what the guest last reported of a volume's header.
func reportOf(v *kms.Volume) (*api.VolumeReport, error) {
	report, err := kms.ParseInventory(v.Inventory)
	if err != nil || report == nil {
		return nil, err
	}
	out := &api.VolumeReport{
		Digest: v.InventoryDigest(), VolumeKeyDigest: hex.EncodeToString(report.VolumeKeyDigest), Sequence: report.Sequence, Size: report.Size,
		Slots: []api.LUKSSlot{}, Tokens: []api.LUKSToken{},
	}
	for _, slot := range report.Slots {
		out.Slots = append(out.Slots, api.LUKSSlot(slot))
	}
	for _, token := range report.Tokens {
		out.Tokens = append(out.Tokens, api.LUKSToken(token))
	}
	return out, nil
}

func measurementOf(m *kms.Measurement) api.Measurement {
	return api.Measurement{
		ID: hexOf(m.Digest), Group: m.Group, Status: string(m.Status), Source: string(m.Source), Machine: m.Machine,
		Created: m.Created, Approved: stamp(m.Approved), ApprovedBy: m.ApprovedBy, CommandLine: m.CommandLine,
	}
}

// withClaims is measurementOf with the claims themselves, and what of them stands
// out.
func withClaims(m *kms.Measurement) (api.Measurement, error) {
	set, err := claims.Parse(m.Claims)
	if err != nil {
		return api.Measurement{}, err
	}
	findings, err := m.Findings()
	if err != nil {
		return api.Measurement{}, err
	}
	out := measurementOf(m)
	out.Claims, out.Findings = claimsOf(slices.Collect(set.All())), claimsOf(findings)
	return out, nil
}

func claimsOf(list []claims.Claim) []api.Claim {
	var out []api.Claim
	for _, c := range list {
		out = append(out, api.Claim(c))
	}
	return out
}

func entryOf(e audit.Entry, index int64) api.AuditEntry {
	out := api.AuditEntry{
		Index: index, ID: e.ID.String(), Time: e.Time, Actor: string(e.Actor.Kind) + "/" + e.Actor.ID,
		Action: e.Action, Object: e.Object, Outcome: string(e.Outcome), Code: e.Code, Policies: e.Policies,
		Request: e.Request, Release: e.Release, Count: e.Count,
	}
	for _, f := range e.Facts {
		out.Facts = append(out.Facts, api.Difference(f))
	}
	return out
}
