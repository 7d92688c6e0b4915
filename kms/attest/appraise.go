package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"keywright.dev/kms/claims"
)

// Boot is what verified evidence says about one boot.
type Boot struct {
	// Measurement is approved for a group of machines.
	Measurement claims.Set
	// Platform is approved for one machine.
	Platform claims.Set
	// State is in neither.
	State claims.Set
	Tier  claims.Tier
	// Counters are those of the quote.
	Counters Counters
	// PCR15 is zero while this boot has had no release.
	PCR15 [sha256.Size]byte
}

// Findings returns the claims that a person should look at before approving:
// what nothing explains, and what systemd-stub was given beside its image.
func (b *Boot) Findings() []claims.Claim {
	var found []claims.Claim
	names := []string{claims.Unexplained, claims.LoaderFinding, claims.StubCommandLine, claims.StubParameter, claims.StubExtension}
	for _, set := range []claims.Set{b.Measurement, b.Platform} {
		for c := range set.All() {
			if slices.Contains(names, c.Name) {
				found = append(found, c)
			}
		}
	}
	return found
}

// Appraiser appraises boots and remembers the logs it saw last. It may be used
// by several goroutines.
type Appraiser struct {
	cache *cache
}

// NewAppraiser returns an appraiser that remembers at most logs event logs, and
// of them at most [MaxRemembered] bytes; a virtual machine's take 2 to 20 KB.
// With 0 it remembers none.
func NewAppraiser(logs int) *Appraiser { return &Appraiser{newCache(logs)} }

// appraised is what an event log alone says.
type appraised struct {
	hash        [sha256.Size]byte
	values      *replayed
	measurement claims.Set
	platform    claims.Set
	state       []claims.Claim // of a state, beside what the quote says
	tier        claims.Tier
}

// Appraise replays an event log in the format of the Linux kernel's
// binary_bios_measurements against a verified quote and names what was
// measured. Its errors are [*Error].
func (a *Appraiser) Appraise(q Quoted, log []byte) (Boot, error) {
	if err := checkMeasured(&q); err != nil {
		return Boot{}, err
	}
	if len(log) > MaxLog {
		return Boot{}, refuse(LogSize, "the event log has %d bytes, at most %d are read", len(log), MaxLog)
	}
	hash := sha256.Sum256(log)
	if known, ok := a.cache.get(hash); ok {
		return known.boot(&q)
	}
	fresh, err := appraise(hash, log, &q)
	if err != nil {
		return Boot{}, err
	}
	// Only a log that a quote vouches for is remembered.
	a.cache.put(fresh)
	return fresh.boot(&q)
}

// appraise compares before it names: what does not replay is not looked at.
func appraise(hash [sha256.Size]byte, log []byte, q *Quoted) (*appraised, error) {
	parsed, err := parseLog(log)
	if err != nil {
		return nil, err
	}
	a := &appraised{hash: hash, values: parsed.replay()}
	if _, err := a.values.match(q); err != nil {
		return nil, err
	}
	if err := parsed.checkSeparators(); err != nil {
		return nil, err
	}
	named := parsed.classify()
	if a.measurement, err = claims.New(claims.Measurement, named.measurement); err != nil {
		return nil, refuse(LogSize, "the event log makes too many claims: %v", err)
	}
	if a.platform, err = claims.New(claims.Platform, named.platform); err != nil {
		return nil, refuse(LogSize, "the event log makes too many claims: %v", err)
	}
	a.state = named.state
	a.tier = claims.TierOf(a.measurement)
	return a, nil
}

// boot adds what the quote says.
func (a *appraised) boot(q *Quoted) (Boot, error) {
	phase, err := a.values.match(q)
	if err != nil {
		return Boot{}, err
	}
	state, err := q.state(phase, a.state)
	if err != nil {
		return Boot{}, err
	}
	boot := Boot{
		Measurement: a.measurement,
		Platform:    a.platform,
		State:       state,
		Tier:        a.tier,
		Counters:    q.counters,
	}
	boot.PCR15, _ = q.PCR(statePCR)
	return boot, nil
}

// state returns what is in neither set: what the quote says, then more.
func (q *Quoted) state(phase string, more []claims.Claim) (claims.Set, error) {
	safe := map[bool]string{true: "yes", false: "no"}
	pcr15, _ := q.PCR(statePCR)
	return claims.New(claims.State, append([]claims.Claim{
		{Name: claims.TPMResetCount, Value: strconv.FormatUint(uint64(q.counters.ResetCount), 10)},
		{Name: claims.TPMRestartCount, Value: strconv.FormatUint(uint64(q.counters.RestartCount), 10)},
		{Name: claims.TPMClock, Value: strconv.FormatUint(q.counters.Clock, 10)},
		{Name: claims.TPMClockSafe, Value: safe[q.counters.Safe]},
		{Name: claims.TPMFirmware, Value: fmt.Sprintf("%016x", q.firmware)},
		{Name: claims.BootPhase, Value: phase},
		{Name: claims.PCR15, Value: hex.EncodeToString(pcr15[:])},
	}, more...))
}
