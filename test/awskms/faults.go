package awskms

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// faults is what the server does wrong.
type faults struct {
	down       bool
	slow       time.Duration
	throttle   int
	retryAfter time.Duration
	refusals   []refusal
	lie        Lie
	skew       time.Duration
}

// fault is what it does wrong with one request.
type fault struct {
	down       bool
	slow       time.Duration
	retryAfter time.Duration
	refusal    *refusal
	lie        Lie
}

func (f *faults) next() fault {
	this := fault{down: f.down, slow: f.slow, lie: f.lie}
	switch {
	case len(f.refusals) > 0:
		this.refusal = &f.refusals[0]
		f.refusals = f.refusals[1:]
	case f.throttle > 0:
		f.throttle--
		this.refusal = refuse("ThrottlingException", "Rate exceeded")
		this.retryAfter = f.retryAfter
	}
	return this
}

// SetDown has the server break every connection without an answer.
func (s *Server) SetDown(down bool) { s.fail(func(f *faults) { f.down = down }) }

// SetSlow has it take so long for each answer.
func (s *Server) SetSlow(d time.Duration) { s.fail(func(f *faults) { f.slow = d }) }

// Throttle has it throttle the next n requests, and ask for a pause, if any, with
// Retry-After.
func (s *Server) Throttle(n int, retryAfter time.Duration) {
	s.fail(func(f *faults) { f.throttle, f.retryAfter = n, retryAfter })
}

// Refuse has it answer the next n requests with an error, whatever they ask.
func (s *Server) Refuse(n, status int, kind, message string) {
	s.fail(func(f *faults) {
		f.refusals = nil
		for range n {
			f.refusals = append(f.refusals, refusal{status, kind, message})
		}
	})
}

// SetLie has it lie in this way; nil ends it.
func (s *Server) SetLie(lie Lie) { s.fail(func(f *faults) { f.lie = lie }) }

// SetClock has its clock run ahead of ours by so much.
func (s *Server) SetClock(ahead time.Duration) { s.fail(func(f *faults) { f.skew = ahead }) }

func (s *Server) fail(change func(*faults)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.faults)
}

// stumble carries out a fault. It returns true where the request has had its answer.
func (s *Server) stumble(w http.ResponseWriter, r *http.Request, f fault, body []byte) bool {
	if f.slow > 0 {
		select {
		case <-time.After(f.slow):
		case <-r.Context().Done():
			return true
		case <-s.closing:
			return true
		}
	}
	if f.down {
		panic(http.ErrAbortHandler)
	}
	if f.refusal == nil {
		return false
	}
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.retryAfter/time.Second)))
	}
	told := *f.refusal
	told.Message = strings.ReplaceAll(told.Message, "{request}", string(body))
	Lie(nil).write(w, nil, &told)
	return true
}

// Lie changes an answer that is written: what KMS says, and how it says it. Nil
// tells the truth.
type Lie func(w http.ResponseWriter, a Answer)

// write writes what the server says.
func (lie Lie) write(w http.ResponseWriter, answer any, refused *refusal) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if refused != nil {
		w.WriteHeader(refused.status)
		_ = json.NewEncoder(w).Encode(refused)
		return
	}
	if a, ok := answer.(Answer); ok && lie != nil {
		lie(w, a)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// Saying lies by another answer.
func Saying(change func(*Answer)) Lie {
	return func(w http.ResponseWriter, a Answer) {
		change(&a)
		_ = json.NewEncoder(w).Encode(a)
	}
}

// Truncated ends the answer in its middle.
func Truncated(w http.ResponseWriter, a Answer) {
	text, err := json.Marshal(a)
	if err != nil {
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text[:len(text)/2])
}

// Oversize answers what is true, behind a hundred megabytes of blanks.
func Oversize(w http.ResponseWriter, a Answer) {
	blanks := strings.Repeat(" ", 1<<20)
	for range 100 {
		if _, err := io.WriteString(w, blanks); err != nil {
			return
		}
	}
	_ = json.NewEncoder(w).Encode(a)
}

// Garbage answers a page that is no JSON.
func Garbage(w http.ResponseWriter, _ Answer) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<html>Welcome to this hotel's network</html>")
}

// RedirectTo sends who asks to another place, by a status of 3xx.
func RedirectTo(url string, status int) Lie {
	return func(w http.ResponseWriter, _ Answer) {
		w.Header().Set("Location", url)
		w.WriteHeader(status)
	}
}
