package attest

import (
	"encoding/binary"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// ReadLog lets fuzz tests read logs that no quote vouches for.
func ReadLog(log []byte) (pcrs exchange.PCRValues, measurement, platform, state []claims.Claim, err error) {
	parsed, err := parseLog(log)
	if err != nil {
		return pcrs, nil, nil, nil, err
	}
	for pcr, value := range parsed.replay() {
		pcrs.Set(uint(pcr), value)
	}
	named := parsed.classify()
	return pcrs, named.measurement, named.platform, named.state, nil
}

// Remembered returns how many logs are remembered.
func (a *Appraiser) Remembered() int { return max(a.cache.recent.Len(), len(a.cache.byHash)) }

// Remarshal parses a TPMS_ATTEST and writes it again from what was understood.
func Remarshal(data []byte) ([]byte, error) {
	a, err := parseAttested(data)
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	sized := func(b, body []byte) []byte { return append(be.AppendUint16(b, uint16(len(body))), body...) }
	out := be.AppendUint16(be.AppendUint32(nil, tpmGenerated), tpmAttestQuote)
	out = sized(sized(out, a.signer), a.extraData)
	out = be.AppendUint64(out, a.counters.Clock)
	out = be.AppendUint32(be.AppendUint32(out, a.counters.ResetCount), a.counters.RestartCount)
	out = append(out, map[bool]byte{true: 1}[a.counters.Safe])
	out = append(be.AppendUint64(out, a.firmware), a.selection...)
	return sized(out, a.digest), nil
}
