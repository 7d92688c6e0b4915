package awskms

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	dateFormat = "20060102T150405Z"
	// staleAfter is how far a request's date may be from ours.
	staleAfter = 5 * time.Minute
)

// authorization is what the header of that name says.
type authorization struct {
	accessKey, day, region, service string
	headers                         []string
	signature                       string
}

func parseAuthorization(header string) (authorization, bool) {
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	parts := strings.Split(rest, ", ")
	if !ok || len(parts) != 3 {
		return authorization{}, false
	}
	credential, ok1 := strings.CutPrefix(parts[0], "Credential=")
	headers, ok2 := strings.CutPrefix(parts[1], "SignedHeaders=")
	signature, ok3 := strings.CutPrefix(parts[2], "Signature=")
	scope := strings.Split(credential, "/")
	if !ok1 || !ok2 || !ok3 || len(scope) != 5 || scope[4] != "aws4_request" {
		return authorization{}, false
	}
	return authorization{scope[0], scope[1], scope[2], scope[3], strings.Split(headers, ";"), signature}, true
}

func (a authorization) scope() string {
	return strings.Join([]string{a.day, a.region, a.service, "aws4_request"}, "/")
}

// authenticate tells who signed the request, and for which region.
func (s *Server) authenticate(r *http.Request, body []byte) (*user, string, *refusal) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, "", refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	auth, ok := parseAuthorization(header)
	if !ok {
		return nil, "", refuse("IncompleteSignatureException", "Authorization header is not of the form that it must be.")
	}
	caller, known := s.users[auth.accessKey]
	if !known || caller.token != r.Header.Get("X-Amz-Security-Token") {
		return nil, "", refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if caller.expired {
		return nil, "", refuse("ExpiredTokenException", "The security token included in the request is expired")
	}
	if why := s.checkSignature(r, body, auth, caller.secret); why != "" {
		return nil, "", refuse("InvalidSignatureException", why)
	}
	return caller, auth.region, nil
}

// checkSignature returns what is wrong with it.
func (s *Server) checkSignature(r *http.Request, body []byte, auth authorization, key string) string {
	for _, must := range []string{"host", "x-amz-date", "x-amz-target", "x-amz-security-token"} {
		if !slices.Contains(auth.headers, must) {
			return "'" + must + "' must be a 'SignedHeader' in the AWS Authorization."
		}
	}
	if auth.service != "kms" {
		return "Credential should be scoped to correct service: 'kms'."
	}
	date, err := time.Parse(dateFormat, r.Header.Get("X-Amz-Date"))
	if err != nil || date.Format("20060102") != auth.day {
		return "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP."
	}
	if age := s.now().Sub(date); age.Abs() > staleAfter {
		return "Signature expired: " + date.Format(dateFormat) + " is too far from " + s.now().UTC().Format(dateFormat)
	}
	want := sign(signingKey(key, auth), stringToSign(r, body, auth))
	if !hmac.Equal([]byte(hex.EncodeToString(want)), []byte(auth.signature)) {
		return "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method."
	}
	return ""
}

func stringToSign(r *http.Request, body []byte, auth authorization) string {
	return strings.Join([]string{
		algorithm, r.Header.Get("X-Amz-Date"), auth.scope(), hash([]byte(canonicalRequest(r, body, auth))),
	}, "\n")
}

// canonicalRequest follows "Create a signed AWS API request" in the IAM User Guide.
func canonicalRequest(r *http.Request, body []byte, auth authorization) string {
	var headers strings.Builder
	for _, name := range auth.headers {
		headers.WriteString(name + ":" + canonicalHeader(r, name) + "\n")
	}
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20")
	return strings.Join([]string{
		r.Method, r.URL.EscapedPath(), query, headers.String(), strings.Join(auth.headers, ";"), hash(body),
	}, "\n")
}

func canonicalHeader(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	var values []string
	for _, v := range r.Header.Values(name) {
		values = append(values, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join(values, ",")
}

func signingKey(key string, auth authorization) []byte {
	k := sign([]byte("AWS4"+key), auth.day)
	k = sign(k, auth.region)
	k = sign(k, auth.service)
	return sign(k, "aws4_request")
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
