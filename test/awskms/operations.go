package awskms

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// Limits of KMS, in bytes.
const (
	maxPlaintext  = 4096
	maxCiphertext = 6144
)

// refusal is an error that KMS answers.
type refusal struct {
	status  int
	Type    string `json:"__type"`
	Message string `json:"message"`
}

func refuse(kind, message string) *refusal { return &refusal{http.StatusBadRequest, kind, message} }

func operationOf(r *http.Request) string {
	name, _ := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	return name
}

// encryptIn, decryptIn and reEncryptIn are the requests, with what ours may hold.
type encryptIn struct {
	KeyID               string `json:"KeyId"`
	Plaintext           []byte
	EncryptionContext   map[string]string
	EncryptionAlgorithm string
}

type decryptIn struct {
	KeyID               string `json:"KeyId"`
	CiphertextBlob      []byte
	EncryptionContext   map[string]string
	EncryptionAlgorithm string
}

type reEncryptIn struct {
	CiphertextBlob                 []byte
	SourceKeyID                    string `json:"SourceKeyId"`
	DestinationKeyID               string `json:"DestinationKeyId"`
	SourceEncryptionContext        map[string]string
	DestinationEncryptionContext   map[string]string
	SourceEncryptionAlgorithm      string
	DestinationEncryptionAlgorithm string
}

// Answer is what an operation that succeeds says.
type Answer struct {
	KeyID               string `json:"KeyId,omitempty"`
	SourceKeyID         string `json:"SourceKeyId,omitempty"`
	Plaintext           []byte `json:",omitempty"`
	CiphertextBlob      []byte `json:",omitempty"`
	EncryptionAlgorithm string `json:",omitempty"`
}

// call is one request of somebody who is known.
type call struct {
	server *Server
	caller *user
	region string
}

func (s *Server) operate(caller *user, region, operation string, body []byte) (any, *refusal) {
	c := call{s, caller, region}
	switch operation {
	case "Encrypt":
		return perform(body, c.encrypt)
	case "Decrypt":
		return perform(body, c.decrypt)
	case "ReEncrypt":
		return perform(body, c.reEncrypt)
	default:
		return nil, refuse("UnknownOperationException", "")
	}
}

func perform[In any](body []byte, do func(In) (Answer, *refusal)) (any, *refusal) {
	var in In
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, refuse("SerializationException", err.Error())
	}
	answer, refused := do(in)
	if refused != nil {
		return nil, refused
	}
	return answer, nil
}

// key finds a key that the caller may use so, in this state.
func (c call) key(arn, action string, context map[string]string) (*regional, *refusal) {
	key, known := c.server.keys[arn]
	if !known || !strings.HasPrefix(arn, "arn:aws:kms:"+c.region+":") {
		return nil, refuse("NotFoundException", "Key '"+arn+"' does not exist")
	}
	if !c.caller.policy.allows(action, arn, context) {
		return nil, refuse("AccessDeniedException", "User: arn:aws:iam::"+Account+":user/keywright is not authorized to perform: "+
			action+" on resource: "+arn+" because no identity-based policy allows the "+action+" action")
	}
	if refused := key.usable(); refused != nil {
		return nil, refused
	}
	return key, nil
}

func (c call) encrypt(in encryptIn) (Answer, *refusal) {
	if n := len(in.Plaintext); n == 0 || n > maxPlaintext {
		return Answer{}, invalid("plaintext")
	}
	key, refused := c.key(in.KeyID, "kms:Encrypt", in.EncryptionContext)
	if refused != nil {
		return Answer{}, refused
	}
	return key.answerEncrypted(in.Plaintext, in.EncryptionContext)
}

func (k *regional) answerEncrypted(plaintext []byte, context map[string]string) (Answer, *refusal) {
	blob, err := k.encrypt(plaintext, context)
	if err != nil {
		return Answer{}, &refusal{http.StatusInternalServerError, "KMSInternalException", err.Error()}
	}
	return Answer{KeyID: k.arn, CiphertextBlob: blob, EncryptionAlgorithm: "SYMMETRIC_DEFAULT"}, nil
}

func (c call) decrypt(in decryptIn) (Answer, *refusal) {
	key, plaintext, refused := c.open(in.KeyID, "kms:Decrypt", in.CiphertextBlob, in.EncryptionContext)
	if refused != nil {
		return Answer{}, refused
	}
	return Answer{KeyID: key.arn, Plaintext: plaintext, EncryptionAlgorithm: "SYMMETRIC_DEFAULT"}, nil
}

func (c call) reEncrypt(in reEncryptIn) (Answer, *refusal) {
	source, plaintext, refused := c.open(in.SourceKeyID, "kms:ReEncryptFrom", in.CiphertextBlob, in.SourceEncryptionContext)
	if refused != nil {
		return Answer{}, refused
	}
	key, refused := c.key(in.DestinationKeyID, "kms:ReEncryptTo", in.DestinationEncryptionContext)
	if refused != nil {
		return Answer{}, refused
	}
	answer, refused := key.answerEncrypted(plaintext, in.DestinationEncryptionContext)
	answer.SourceKeyID = source.arn
	return answer, refused
}

func (c call) open(arn, action string, blob []byte, context map[string]string) (*regional, []byte, *refusal) {
	if n := len(blob); n == 0 || n > maxCiphertext {
		return nil, nil, invalid("ciphertextBlob")
	}
	key, refused := c.key(arn, action, context)
	if refused != nil {
		return nil, nil, refused
	}
	owner := ownerOf(blob)
	if owner != key.id && c.server.has(owner) {
		return nil, nil, refuse("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	plaintext, ok := key.decrypt(blob, context)
	if !ok {
		return nil, nil, refuse("InvalidCiphertextException", "")
	}
	return key, plaintext, nil
}

func (s *Server) has(id string) bool {
	for _, key := range s.keys {
		if key.id == id {
			return true
		}
	}
	return false
}

func invalid(field string) *refusal {
	return refuse("ValidationException", "1 validation error detected: Value at '"+field+"' failed to satisfy constraint: its length is out of bounds")
}
