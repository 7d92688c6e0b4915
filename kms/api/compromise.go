package api

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// MaxCompromised bounds what one chain is planned for.
const MaxCompromised = 32

// Compromise is what is out.
type Compromise struct {
	// What are keyring/NAME@N, volume/ID, machine/NAME and luks-header:volume/ID.
	What []string
	// Since is when it was found out: what was made before is replaced; the zero time
	// is now.
	Since time.Time
	// Copied tells that disks or headers may have been copied, too.
	Copied bool
}

// RotationChain is what is to be done about keys that are out.
type RotationChain struct {
	// At is the moment that it is made for.
	At time.Time `json:"at"`
	// Steps stand in their order, and name what they come after.
	Steps []RotationStep `json:"steps"`
	// Unlisted counts steps that are not listed.
	Unlisted int `json:"unlisted"`
	// Totals count the steps, and what is to be done beside them. With none nothing is
	// left to do.
	Totals []RotationTotal `json:"totals"`
	// Unopenable are the images of disks that nothing opens after it, but for recovery
	// keys and passphrases that were in their headers.
	Unopenable      []UnopenableImages `json:"unopenable"`
	UnopenableCount int64              `json:"unopenable_count"`
	// Beyond says what only people can do.
	Beyond []string `json:"beyond"`
}

// RotationAction names a step.
type RotationAction struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
}

// UnopenableImages are images of a volume from while a secret was the current one.
type UnopenableImages struct {
	Object string    `json:"object"` // volume/ID@3
	From   time.Time `json:"from"`
	// Until is absent of the secret that is the current one.
	Until *time.Time `json:"until,omitempty"`
}

// RotationChain plans what is to be done about keys that are out. At most limit steps
// are listed; 0 leaves that to the service.
func (o *OperatorClient) RotationChain(ctx context.Context, c Compromise, limit int) (RotationChain, error) {
	query := url.Values{"what": c.What}
	if !c.Since.IsZero() {
		query.Set("since", c.Since.UTC().Format(time.RFC3339Nano))
	}
	if c.Copied {
		query.Set("copied", "true")
	}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	return get[RotationChain](ctx, o.c, PathRotationChain, query)
}
