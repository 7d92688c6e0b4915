package api

// Limits of the wire. What exceeds them is refused before it is parsed.
const (
	// MaxRequest bounds the body of a request without evidence, in bytes.
	MaxRequest = 64 << 10
	// MaxEvidenceRequest bounds the body of a request that carries evidence, in
	// bytes: event logs of virtual machines have 20 to 60 KB.
	MaxEvidenceRequest = 1 << 20
	// MaxAnswer bounds what a client reads of one answer, in bytes: the copy of a
	// header with all keyslots in use. An audit export is a stream and has no bound.
	MaxAnswer = 12 << 20
	// MaxGuestAnswer bounds what a guest reads of one answer, in bytes.
	MaxGuestAnswer = 256 << 10
	// MaxKeyRequest bounds the body of a call of the key API, in bytes, and
	// MaxKeyAnswer what a client reads of the answer.
	MaxKeyRequest = 3 << 20
	MaxKeyAnswer  = 3 << 20
	// MaxDepth bounds how deep arrays and objects of a body nest.
	MaxDepth = 8
	// MaxPage is the largest page of a list.
	MaxPage = 1000
	// DefaultPage is the page of a request that names no limit.
	DefaultPage = 100
)
