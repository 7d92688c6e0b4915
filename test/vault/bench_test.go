package vault

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
)

// batch is what one request of Transit's rewrap holds here.
const batch = 1000

// newTransit returns what has the engine rewrap a batch of 32-byte secrets to the
// newest version of its key, as Vault serves it: from one JSON text to another.
func newTransit(b *testing.B) (rewrap func(*testing.B)) {
	b.Helper()
	f := &front{tokens: map[string]time.Time{"t": {}}, asked: map[string]int{}}
	f.backend, f.storage = engine(b)
	f.policy = policy{mount + "/rewrap/keywright": {"update"}}
	f.makeKey(b, "keywright", nil)
	text := f.rewrapRequest(b)
	return func(b *testing.B) {
		b.Helper()
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPut, "/v1/"+mount+"/rewrap/keywright", strings.NewReader(text))
		req.Header.Set("X-Vault-Token", "t")
		w := httptest.NewRecorder()
		f.ServeHTTP(w, req)
		require.Equal(b, http.StatusOK, w.Code)
	}
}

// rewrapRequest is a request over secrets of version 1, when 2 is the newest.
func (f *front) rewrapRequest(b *testing.B) string {
	items := make([]any, batch)
	for i := range items {
		plaintext := fmt.Appendf(nil, "%0*d", root.KeySize, i)
		resp := f.operate(b, logical.UpdateOperation, "encrypt/keywright",
			map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plaintext)})
		items[i] = map[string]any{"ciphertext": resp.Data["ciphertext"]}
	}
	f.operate(b, logical.UpdateOperation, "keys/keywright/rotate", nil)
	text, err := json.Marshal(map[string]any{"batch_input": items})
	require.NoError(b, err)
	return string(text)
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
