package kms_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/test/sim"
)

func TestApprovalIsCheckedAndRecorded(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	id := m.TPM.Machine()
	for want, a := range map[string]kms.Approval{
		"--ek-hash":              {},
		"64 hexadecimal digits":  {EKHash: "abc"},
		"is not one":             {EKHash: id, Name: "Web_17"},
		"is not a name":          {EKHash: id, Group: "Group!"},
		"no platform set":        {EKHash: id, Platform: hexOf([32]byte{1})},
		"at least 6 characters":  {EKHash: id, Measurement: "abc"},
		"measurement/abcdef0123": {EKHash: id, Measurement: "abcdef0123"},
	} {
		_, err := f.ApproveMachine(t.Context(), operator(), "web-17", a)
		require.ErrorContains(t, err, want)
	}
	row, err := f.ApproveMachine(t.Context(), operator(), "machine/web-17", kms.Approval{EKHash: "SHA256:" + id, Group: "web"})
	require.NoError(t, err)
	assert.Equal(t, kms.MachineActive, row.Status)
	assert.Equal(t, "web-17", row.Name)
	entry := f.lastEntry(id)
	assert.Equal(t, kms.ActionApprove, entry.Action)
	assert.Equal(t, audit.Actor{Kind: audit.ActorOperator, ID: "uid/0"}, entry.Actor)

	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err, "the measurement was approved for the group web")
}

func TestTrustedTPMNeedsNoHash(t *testing.T) {
	f := newFixture(t)
	f.trust = "ca: CN=swtpm"
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	_, err := f.ApproveMachine(t.Context(), operator(), "web-17", kms.Approval{})
	require.NoError(t, err)
}

// TestUnmeasuredBootIsOffByDefault boots a machine whose firmware measures too
// little: two people have to want it, who approves and who writes the policy.
func TestUnmeasuredBootIsOffByDefault(t *testing.T) {
	f := newFixture(t)
	m := f.machine("old")
	m.Log = recordedBoot(t, "seabios-kernel")
	m.Boot()
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	approval := kms.Approval{EKHash: m.TPM.Machine(), Group: "legacy"}
	_, err := f.ApproveMachine(t.Context(), operator(), "old", approval)
	require.ErrorContains(t, err, "--allow-unmeasured")
	approval.AllowUnmeasured = true
	_, err = f.ApproveMachine(t.Context(), operator(), "old", approval)
	require.NoError(t, err)
	assert.Equal(t, "identity", factOf(t, f.lastEntry(m.TPM.Machine()), "tier").Is)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPolicy, err)

	// As docs/policy.md says.
	documents, err := policy.Shipped()
	require.NoError(t, err)
	for i, d := range documents {
		documents[i].Text = bytes.Replace(d.Text, []byte(`when { context.tier == "identity" }`),
			[]byte(`when { context.tier == "identity" && !(principal in Group::"legacy") }`), 1)
	}
	f.policy, err = policy.New(documents...)
	require.NoError(t, err)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

// TestRevocationTellsWhatMayBeOpenAlready revokes a machine that never booted:
// its enrolment delivered the keys.
func TestRevocationTellsWhatMayBeOpenAlready(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	_, opens, err := f.RevokeMachine(t.Context(), operator(), m.TPM.Machine(), "")
	require.NoError(t, err)
	assert.Len(t, opens, 2)
}

func TestReferences(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	id := m.TPM.Machine()
	for _, ref := range []string{"web-17", "machine/web-17", id, "machine/" + id, id[:8]} {
		found, err := f.FindMachine(t.Context(), ref)
		require.NoError(t, err, ref)
		assert.Equal(t, id, found.ID)
	}
	for ref, want := range map[string]string{
		"":               "named by its name",
		"web-18":         "not found",
		"machine/":       "named by its name",
		id[:3]:           "at least 6 characters",
		"' OR 1=1 --":    "not found",
		"web-17/machine": "not found",
	} {
		_, err := f.FindMachine(t.Context(), ref)
		require.ErrorContains(t, err, want, ref)
	}
}

func TestRename(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	f.active("web-18")
	_, err := f.RenameMachine(t.Context(), operator(), "web-17", "web-18")
	require.ErrorContains(t, err, "another machine has the name")
	_, err = f.RenameMachine(t.Context(), operator(), "web-17", "Web 19")
	require.ErrorContains(t, err, "is not one")
	_, err = f.RenameMachine(t.Context(), operator(), "web-17", "web-19")
	require.NoError(t, err)
	_, err = f.FindMachine(t.Context(), "web-17")
	require.ErrorIs(t, err, kms.ErrNotFound)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)

	pending := f.machine("web-20")
	require.NoError(t, pending.Enroll(t.Context(), f.guest()))
	_, err = f.RenameMachine(t.Context(), operator(), pending.TPM.Machine(), "web-21")
	require.ErrorContains(t, err, "no name yet")
}

func TestPredictedBootIsApprovedBeforeItHappens(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	files := filesOf(t, "next kernel")
	row, err := f.SubmitMeasurement(t.Context(), operator(), "machine/web-17", "", files)
	require.NoError(t, err)
	assert.Equal(t, kms.MeasurementSeen, row.Status)
	again, err := f.SubmitMeasurement(t.Context(), operator(), "measurement/"+hexOf(measurementOf(t, f, m)), "", files)
	require.NoError(t, err)
	assert.Equal(t, row.Digest, again.Digest)

	approved, err := f.ApproveMeasurement(t.Context(), operator(), hexOf(row.Digest)[:16], "")
	require.NoError(t, err)
	assert.Equal(t, kms.MeasurementApproved, approved.Status)
	once, err := f.SubmitMeasurement(t.Context(), operator(), "web-17", "", files)
	require.NoError(t, err)
	assert.Equal(t, kms.MeasurementApproved, once.Status, "a submission takes no approval back")

	elsewhere, err := f.ApproveMeasurement(t.Context(), operator(), hexOf(row.Digest), "web")
	require.NoError(t, err)
	assert.Equal(t, "web", elsewhere.Group)
	_, err = f.FindMeasurement(t.Context(), hexOf(row.Digest), "")
	require.ErrorContains(t, err, "several groups")

	_, err = f.SubmitMeasurement(t.Context(), operator(), "web-17", "", []byte("no claims"))
	require.ErrorContains(t, err, "canonical form")
	_, err = f.SubmitMeasurement(t.Context(), operator(), "web-99", "", files)
	require.ErrorIs(t, err, kms.ErrNotFound)
}

func measurementOf(t *testing.T, f *fixture, m *sim.Machine) [32]byte {
	t.Helper()
	row, err := f.FindMachine(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	return row.Measurement
}

func TestExplain(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "pending")
	assert.Contains(t, x.Advice, "--ek-hash")

	f.approve(m)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	x, err = f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "received its keys")

	_, _, err = f.RevokeMachine(t.Context(), operator(), "web-17", "lost")
	require.NoError(t, err)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonRevoked, err)
	x, err = f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "is revoked; it was revoked at 2026-01-02 03:04:05Z by uid/0: lost")
	assert.NotEmpty(t, x.Advice)
}

func TestUnprovenRefusalsAreCounted(t *testing.T) {
	f := newFixture(t)
	m := f.machine("nobody")
	for range 5 {
		_, err := m.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonMachine, err)
	}
	require.NoError(t, f.FlushAggregates(t.Context()))
	require.NoError(t, f.FlushAggregates(t.Context()), "nothing is counted twice")
	found, err := f.store.LatestEntries(t.Context(), "", kms.ActionUnproven, 10)
	require.NoError(t, err)
	require.Len(t, found, 1)
	entry, err := f.Log.Verifier().Verify(found[0].Signed)
	require.NoError(t, err)
	assert.EqualValues(t, 5, entry.Count)
	assert.Equal(t, "192.0.2.7/32", entry.Actor.ID)
	assert.Equal(t, "machine_unknown", entry.Code)
}

func TestSequencedLogVerifies(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	n, err := f.Sequence(t.Context())
	require.NoError(t, err)
	assert.Positive(t, n)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	n, err = f.Sequence(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	n, err = f.Sequence(t.Context())
	require.NoError(t, err)
	assert.Zero(t, n)

	head, size, err := f.store.Head(t.Context())
	require.NoError(t, err)
	tree, err := f.Log.Verifier().OpenHead(head)
	require.NoError(t, err)
	assert.Equal(t, size, tree.N)
	proof, err := audit.Prove(f.store.TreeHashes(t.Context()), head, tree, size-1)
	require.NoError(t, err)
	_, err = f.Log.Verifier().CheckInclusion(m.Receipt, proof)
	require.NoError(t, err, "the receipt that the guest keeps is in the tree")
}

// TestReleaseAndRevocationConflict races them: whoever was released stands in
// the log before the revocation.
func TestReleaseAndRevocationConflict(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	requests := make([]*sim.Request, 8)
	for i := range requests {
		requests[i] = request(t, f, m)
	}
	var group sync.WaitGroup
	released := make([]bool, len(requests))
	attestations := prepare(t, requests)
	for i := range requests {
		group.Go(func() {
			_, err := f.Release(context.Background(), attestations[i])
			released[i] = err == nil
		})
	}
	group.Go(func() {
		_, _, err := f.RevokeMachine(context.Background(), operator(), "web-17", "")
		assert.NoError(t, err)
	})
	group.Wait()

	found, err := f.store.LatestEntries(t.Context(), m.TPM.Machine(), "", 100)
	require.NoError(t, err)
	revoked, allowed := false, 0
	for i := len(found) - 1; i >= 0; i-- {
		entry, err := f.Log.Verifier().Verify(found[i].Signed)
		require.NoError(t, err)
		revoked = revoked || entry.Action == kms.ActionRevoke
		if entry.Action == kms.ActionRelease && entry.Outcome == audit.Allowed {
			assert.False(t, revoked, "a release after the revocation")
			allowed++
		}
	}
	got := 0
	for _, ok := range released {
		if ok {
			got++
		}
	}
	assert.Equal(t, allowed, got)
}

func prepare(t *testing.T, requests []*sim.Request) []kms.Attested {
	t.Helper()
	out := make([]kms.Attested, len(requests))
	for i, r := range requests {
		a, err := r.Attest()
		require.NoError(t, err)
		out[i] = attested(a)
	}
	return out
}

func TestChallengeKeyRotates(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	r := request(t, f, m)
	f.clock.Advance(kms.ChallengeKeyLifetime)
	fresh, err := f.IssueChallenge(exchange.PurposeBoot)
	require.NoError(t, err)
	require.NoError(t, f.Challenges.RotateIfDue(t.Context()))
	_, err = f.Challenges.Check(exchange.PurposeBoot, fresh.Nonce[:], fresh.Token)
	require.NoError(t, err, "issued under the key before")
	f.clock.Advance(kms.ChallengeTTL + 1)
	require.NoError(t, f.Challenges.RotateIfDue(t.Context()))
	_, err = r.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonChallenge, err)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

// filesOf returns the claims of a boot file that does not exist.
func filesOf(t *testing.T, content string) []byte {
	t.Helper()
	digest := hexOf(sha256.Sum256([]byte(content)))
	var list []claims.Claim
	for _, name := range []string{
		claims.BootApplication, claims.KernelImage, claims.UKILinux, claims.UKIInitrd,
		claims.KernelCommandLine, claims.KernelInitrd,
	} {
		list = append(list, claims.Claim{Name: name, Value: digest})
	}
	set, err := claims.New(claims.Files, list)
	require.NoError(t, err)
	return set.Marshal()
}

func TestCommandLineIsBelievedWhereItsDigestWasMeasured(t *testing.T) {
	f := newFixture(t)
	f.active("web-17")
	files, err := claims.Parse(filesOf(t, "next kernel"))
	require.NoError(t, err)
	with := func(measured, told string) []byte {
		var list []claims.Claim
		for c := range files.All() {
			if c.Name == claims.KernelCommandLine {
				c.Value = claims.CommandLineDigest(measured)
			}
			list = append(list, c)
		}
		set, err := claims.New(claims.Files, append(list, claims.Claim{Name: claims.CommandLineText, Value: told}))
		require.NoError(t, err)
		return set.Marshal()
	}
	row, err := f.SubmitMeasurement(t.Context(), operator(), "web-17", "", with("quiet", "quiet"))
	require.NoError(t, err)
	found, err := f.FindMeasurement(t.Context(), hexOf(row.Digest), "")
	require.NoError(t, err)
	assert.Equal(t, "quiet", found.CommandLine)
	row, err = f.SubmitMeasurement(t.Context(), operator(), "web-17", "", with("quiet init=/bin/sh", "quiet"))
	require.NoError(t, err)
	assert.Empty(t, row.CommandLine)
}

func TestPredictedBootIsPartOfTheEnrolment(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	m.NextBoot = filesOf(t, "next kernel")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	row, err := f.FindMachine(t.Context(), "web-17")
	require.NoError(t, err)
	assert.NotEqual(t, row.Expected, row.Measurement)
	f.approve(m)

	expected, err := f.FindMeasurement(t.Context(), hexOf(row.Expected), "")
	require.NoError(t, err)
	assert.Equal(t, kms.MeasurementApproved, expected.Status)
	assert.Equal(t, kms.SourcePredicted, expected.Source)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err) // the boot of the enrolment is not what was approved
}
