package policy

import (
	"encoding/hex"

	"github.com/cedar-policy/cedar-go/types"

	"keywright.dev/kms/claims"
)

const evidenceType = types.EntityType("Evidence")

func (b Boot) context() types.Record {
	measurement := types.RecordMap{
		"approved": types.Boolean(b.Approved),
		"digest":   digest(b.Measurement),
	}
	if b.Matched != "" {
		measurement["matched"] = types.String(b.Matched)
	}
	state, _ := b.Measurement.One(claims.SecureBoot)
	context := Call{b.Source, b.Time}.attributes()
	context["measurement"] = types.NewRecord(measurement)
	context["platform"] = types.NewRecord(types.RecordMap{
		"approved": types.Boolean(b.PlatformApproved),
		"digest":   digest(b.Platform),
	})
	context["tier"] = types.String(claims.TierOf(b.Measurement))
	context["secureBoot"] = types.Boolean(state == claims.Enabled)
	context["evidence"] = uid(evidenceType, "boot")
	return types.NewRecord(context)
}

func digest(s claims.Set) types.String {
	sum := s.Digest()
	return types.String(hex.EncodeToString(sum[:]))
}

// evidence returns all claims as tags. Claims of the three sets never share a
// name, but if they did, a policy would see the values of both.
func (b Boot) evidence() types.Entity {
	values := make(map[types.String][]types.Value)
	for _, set := range []claims.Set{b.Measurement, b.Platform, b.State} {
		for c := range set.All() {
			name := types.String(c.Name)
			values[name] = append(values[name], types.String(c.Value))
		}
	}
	tags := make(types.RecordMap, len(values))
	for name, list := range values {
		tags[name] = types.NewSet(list...)
	}
	return types.Entity{UID: uid(evidenceType, "boot"), Tags: types.NewRecord(tags)}
}
