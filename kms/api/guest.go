package api

import "time"

// Paths of the guest listener. All are POST with a JSON body.
const (
	PathBootChallenge    = "/v1/boot/challenge"
	PathBootRelease      = "/v1/boot/release"
	PathEnrollBegin      = "/v1/enroll/begin"
	PathEnrollComplete   = "/v1/enroll/complete"
	PathCommitChallenge  = "/v1/enroll/challenge"
	PathEnrollCommit     = "/v1/enroll/commit"
	PathStageChallenge   = "/v1/stage/challenge"
	PathStage            = "/v1/stage"
	PathGuestOrders      = "/v1/guest/orders"
	PathRekeyChallenge   = "/v1/rekey/challenge"
	PathRekey            = "/v1/rekey"
	PathRekeyedChallenge = "/v1/rekeyed/challenge"
	PathRekeyHeader      = "/v1/rekey/header"
	PathRekeyed          = "/v1/rekeyed"
)

// ChallengeRequest asks for a challenge.
type ChallengeRequest struct{}

// Challenge is what a statement must contain, and what the service needs to
// recognise it again without having stored it.
type Challenge struct {
	// Challenge is 32 random bytes.
	Challenge []byte `json:"challenge"`
	// Token goes back to the service as it is.
	Token   []byte    `json:"token"`
	Expires time.Time `json:"expires"`
	// Selection is the PCRs to quote: a TPMS_PCR_SELECTION bitmap, SHA-256 bank.
	Selection []byte `json:"selection"`
}

// Evidence is a quote and what it covers.
type Evidence struct {
	// Quote is a TPMS_ATTEST (TPM 2.0 part 2, section 10.12.12).
	Quote []byte `json:"quote"`
	// Signature is a TPMT_SIGNATURE over Quote by the AK.
	Signature []byte `json:"signature"`
	// PCRs are the SHA-256 values of the selected PCRs, 32 bytes each, in
	// ascending order of index.
	PCRs []byte `json:"pcrs"`
	// EventLog is the firmware's log (TCG PC Client platform firmware profile,
	// section 10).
	EventLog []byte `json:"event_log"`
}

// Attested is a statement under a quote. Challenge and machine stand beside the
// statement, which holds them too, for the checks that come before it is parsed.
type Attested struct {
	Machine   string   `json:"machine"`
	Challenge []byte   `json:"challenge"`
	Token     []byte   `json:"token"`
	Statement []byte   `json:"statement"` // package exchange
	Evidence  Evidence `json:"evidence"`
}

// Sealed is a response of package exchange: what only the recipient key of the
// statement opens, under the service identity key's signature.
type Sealed struct {
	Response  []byte `json:"response"`
	Signature []byte `json:"signature"`
	// ServiceKey is the identity key as SubjectPublicKeyInfo.
	ServiceKey []byte `json:"service_key"`
}

// ReleaseRequest asks for the keys of all volumes of a machine.
type ReleaseRequest struct {
	Attested
}

// ReleaseResponse answers a [ReleaseRequest].
type ReleaseResponse struct {
	Sealed Sealed `json:"sealed"`
}

// TPMKeys are the keys of a TPM that enrols.
type TPMKeys struct {
	EK []byte `json:"ek"` // TPMT_PUBLIC
	// EKCertificate is DER; empty where the TPM holds none.
	EKCertificate []byte `json:"ek_certificate,omitempty"`
	AK            []byte `json:"ak"` // TPMT_PUBLIC
}

// BeginRequest starts an enrolment.
type BeginRequest struct {
	Keys TPMKeys `json:"keys"`
}

// BeginResponse holds the challenge of the enrolment and a credential that
// only the TPM with both keys can activate (TPM 2.0 part 1, section 24).
type BeginResponse struct {
	Challenge Challenge `json:"challenge"`
	// Credential and EncryptedSecret are as exchange.MakeCredential returns them.
	Credential      []byte `json:"credential"`
	EncryptedSecret []byte `json:"encrypted_secret"`
}

// CompleteRequest proves the credential and states what enrols.
type CompleteRequest struct {
	Attested
	Keys TPMKeys `json:"keys"`
	// Proof is an HMAC under the credential's secret; see exchange.EnrollProof.
	Proof []byte `json:"proof"`
}

// CompleteResponse holds a fresh secret for each volume.
type CompleteResponse struct {
	Sealed Sealed `json:"sealed"`
}

// CommitRequest tells that the keyslots are in place.
type CommitRequest struct {
	Attested
}

// CommitResponse ends an enrolment.
type CommitResponse struct {
	// Status is the machine's: pending until an operator approves it.
	Status string `json:"status"`
	// Measurement and Platform are digests, in hex, of what the next boot is
	// expected to show; what an operator approves with the machine.
	Measurement string `json:"measurement"`
	Platform    string `json:"platform"`
}

// OrdersRequest asks whether the service wants something of a running machine. It
// is answered when that is so, or after a while.
type OrdersRequest struct {
	Machine string `json:"machine"` // id
}

// OrdersResponse says whether there is a rekey to ask for.
type OrdersResponse struct {
	Ordered bool `json:"ordered"`
	// ServiceKeys are the fingerprints to pin, a hint: a machine that pins others asks
	// for what is signed ([ServiceKeysRequest]).
	ServiceKeys [][]byte `json:"service_keys"`
	// Again is after how many seconds to ask again.
	Again int `json:"again"`
}

// RekeyRequest asks for the secrets of a volume whose rekey is ordered.
type RekeyRequest struct {
	Attested
}

// RekeyResponse holds the current secret and the next one.
type RekeyResponse struct {
	Sealed Sealed `json:"sealed"`
}

// RekeyedRequest reports what became of a rekey.
type RekeyedRequest struct {
	Attested
}

// RekeyedResponse holds an exchange.RekeyAnswer, signed and not sealed.
type RekeyedResponse struct {
	Signed Sealed `json:"signed"`
}

// StageRequest announces the boots that can follow the running one.
type StageRequest struct {
	Attested
}

// StageResponse says what would become of each, in their order.
type StageResponse struct {
	// Until is when what was staged ends; absent where nothing was.
	Until *time.Time   `json:"until,omitempty"`
	Boots []StagedBoot `json:"boots"`
}

// StagedBoot is what would become of a boot.
type StagedBoot struct {
	// Measurement and Platform are the digests, in hex, of what it will show.
	Measurement string `json:"measurement"`
	Platform    string `json:"platform"`
	// Code and Detail say why it would get no keys; empty where it would.
	Code   Code   `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
}
