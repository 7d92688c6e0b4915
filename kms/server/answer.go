package server

import (
	"bytes"
	"net/http"
	"strconv"

	"keywright.dev/kms/api"
)

// headerRequest names the request in an answer's header.
const headerRequest = "Keywright-Request"

// writeJSON writes an answer in one piece.
func writeJSON(w http.ResponseWriter, id string, status int, v any) error {
	body, err := api.Encode(v)
	if err != nil {
		f := fail(api.CodeInternal)
		f.cause = err
		writeFailure(w, id, f)
		return f
	}
	setHeaders(w.Header(), id)
	// Told, it saves the chunks of an answer whose length is not known.
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := bytes.NewReader(body).WriteTo(w); err != nil {
		// The caller is gone: it does not have the answer.
		f := fail(api.CodeTimeout)
		f.cause = err
		return f
	}
	return nil
}

// setHeaders sets what every answer has: no cache and no browser is to make
// anything of it.
func setHeaders(header http.Header, id string) {
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set(headerRequest, id)
}

// writeFailure writes the one form of an error.
func writeFailure(w http.ResponseWriter, id string, f *failure) {
	body := f.body
	body.Request = id
	for name, values := range f.GetHeaders() {
		w.Header()[name] = values
	}
	if unread(f.status) {
		w.Header().Set("Connection", "close")
	}
	// Its fields always encode; a caller that is gone misses nothing.
	_ = writeJSON(w, id, f.status, &body)
}

// unread tells whether some of the request may still be on its way.
func unread(status int) bool {
	switch status {
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout, http.StatusServiceUnavailable,
		http.StatusUnsupportedMediaType, http.StatusTooManyRequests:
		return true
	default:
		return false
	}
}
