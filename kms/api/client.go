package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	mediaJSON = "application/json"
	// maxHeaders bounds an answer's header, in bytes.
	maxHeaders = 16 << 10
	// maxErrorBody bounds what is read of an answer that is not a success.
	maxErrorBody = 8 << 10
)

// caller sends requests to one server.
type caller struct {
	base string // scheme and host
	http *http.Client
	// limit bounds what is read of an answer.
	limit int64
	// query is added to what changes something.
	query string
}

func newCaller(base string, transport *http.Transport, limit int64) caller {
	transport.Proxy = nil
	transport.DisableCompression = true
	transport.MaxResponseHeaderBytes = maxHeaders
	return caller{base: base, limit: limit, http: &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the server redirects, which no Keywright service does")
		},
	}}
}

// post sends body and reads the answer; both are of package api.
func post[Answer any](ctx context.Context, c caller, path string, body any) (Answer, error) {
	var none Answer
	encoded, err := Encode(body)
	if err != nil {
		return none, err
	}
	return exchangeJSON[Answer](ctx, c, http.MethodPost, path+c.query, encoded)
}

// get reads the answer to a query.
func get[Answer any](ctx context.Context, c caller, path string, query url.Values) (Answer, error) {
	if encoded := query.Encode(); encoded != "" {
		path += "?" + encoded
	}
	return exchangeJSON[Answer](ctx, c, http.MethodGet, path, nil)
}

func exchangeJSON[Answer any](ctx context.Context, c caller, method, path string, body []byte) (Answer, error) {
	var answer Answer
	response, err := c.do(ctx, method, path, body)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	data, err := readAll(response.Body, c.limit)
	if err != nil {
		return answer, fmt.Errorf("reading the answer to %s: %w", path, err)
	}
	if err := decodeAnswer(data, &answer); err != nil {
		return answer, fmt.Errorf("reading the answer to %s: %w", path, err)
	}
	return answer, nil
}

// do returns the answer to a request that succeeded, whose body the caller
// closes; any other answer is an [*Error].
func (c caller) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	if body != nil {
		request.Header.Set("Content-Type", mediaJSON)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, readError(response)
	}
	return response, nil
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, nil
}

// readError reads the error that an answer carries, or makes one for an answer
// that is not of a Keywright service, such as a balancer's.
func readError(response *http.Response) *Error {
	var e Error
	data, err := readAll(response.Body, maxErrorBody)
	if err != nil || decodeAnswer(data, &e) != nil || !e.Code.wellFormed() {
		code := codeOfStatus(response.StatusCode)
		e = Error{Code: code, Number: code.Number(), Message: fmt.Sprintf(
			"the server answered with status %d and no error of Keywright: is it a Keywright service?", response.StatusCode)}
	}
	e.Message = printable(e.Message, maxMessage)
	e.Request = printable(e.Request, maxCode)
	if e.RetryAfter <= 0 {
		e.RetryAfter = retryAfter(response.Header)
	}
	return &e
}

func (c Code) wellFormed() bool {
	return c != "" && len(c) <= maxCode && strings.Trim(string(c), "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func codeOfStatus(status int) Code {
	switch status {
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusForbidden, http.StatusUnauthorized:
		return CodeForbidden
	case http.StatusTooManyRequests:
		return CodeRate
	case http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case http.StatusRequestTimeout:
		return CodeTimeout
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return CodeUnavailable
	default:
		return CodeInternal
	}
}

// maxRetryAfter bounds how long an answer can make a client wait, in seconds.
const maxRetryAfter = int(time.Hour / time.Second)

func retryAfter(header http.Header) int {
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(seconds, maxRetryAfter)
}
