package awskms

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

// OpenHasty opens a root that tries again without a pause, unless it is asked for.
func OpenHasty(ctx context.Context, uri string) (*Root, error) {
	return open(ctx, uri, settings{retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return time.Millisecond, nil })})
}
