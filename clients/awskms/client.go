package awskms

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/logging"
)

const (
	// attempts is how often a call is sent at most.
	attempts = 4
	// answerTimeout bounds one attempt's wait for an answer, which takes KMS
	// milliseconds, so that a connection that died is not waited for.
	answerTimeout = 10 * time.Second
	// maxAnswer bounds an answer, in bytes. The largest has a ciphertext in base64.
	maxAnswer = 64 << 10
	// maxRetryAfter bounds what of Retry-After is believed; the SDK waits less.
	maxRetryAfter = time.Minute
)

// settings are what tests change.
type settings struct {
	backoff retry.BackoffDelayer // nil for the SDK's: exponential, with jitter
}

func newClient(ctx context.Context, a address, s settings) (*kms.Client, error) {
	options := []func(*config.LoadOptions) error{
		config.WithRegion(a.region),
		config.WithDefaultsMode(aws.DefaultsModeStandard),
		config.WithRetryer(func() aws.Retryer { return newRetryer(s) }),
		config.WithLogger(logging.Nop{}), // what fails is returned
	}
	if a.profile != "" {
		options = append(options, config.WithSharedConfigProfile(a.profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, err
	}
	return kms.NewFromConfig(cfg, func(o *kms.Options) {
		// What the environment says of endpoints is not what the URI says.
		o.BaseEndpoint = nil
		if a.endpoint != "" {
			o.BaseEndpoint = &a.endpoint
		}
		o.HTTPClient = bounded(o.HTTPClient)
	}), nil
}

// newRetryer returns the SDK's, whose token bucket is shared by the calls of a
// root: where most of them fail, they are no longer tried again.
func newRetryer(s settings) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.Backoff = s.backoff
	})
}

// boundedClient asks over a transport, follows no redirect and bounds answers.
type boundedClient struct{ http http.Client }

// bounded keeps the transport that the SDK configured, with its certificates.
func bounded(c kms.HTTPClient) kms.HTTPClient {
	transport := http.DefaultTransport
	if built, ok := c.(*awshttp.BuildableClient); ok {
		own := built.GetTransport()
		own.ResponseHeaderTimeout = answerTimeout
		transport = own
	}
	return &boundedClient{http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Do sends a request.
func (c *boundedClient) Do(request *http.Request) (*http.Response, error) {
	response, err := c.http.Do(request) //nolint:gosec // its address is the one that is configured
	if err != nil {
		return nil, err
	}
	response.Body = &boundedBody{response.Body, maxAnswer}
	translateRetryAfter(response.Header)
	return response, nil
}

// boundedBody fails where an answer goes on after left bytes.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return n, err
}

// translateRetryAfter tells the SDK what a proxy says: it knows the milliseconds
// of AWS's own header alone, and waits for at most five seconds more than it
// would have.
func translateRetryAfter(h http.Header) {
	const own = "X-Amz-Retry-After"
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31)
	if err != nil || h.Get(own) != "" {
		return
	}
	wait := min(time.Duration(seconds)*time.Second, maxRetryAfter)
	h.Set(own, strconv.FormatInt(wait.Milliseconds(), 10))
}
