package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/time/rate"

	"keywright.dev/kms/api"
)

const (
	// rewrapPage is how many secrets a request asks for: some tenths of a second of
	// the service's time.
	rewrapPage = 500
	// rewrapLogEvery is how often a rewrap without a terminal says how far it is.
	rewrapLogEvery = 10 * time.Second
)

func (p *Program) keyringRewrap() *cobra.Command {
	var (
		perSecond int
		dryRun    bool
	)
	c := &cobra.Command{
		Use: "rewrap KEYRING", Short: "Wrap what older versions wrapped with the current version",
		Long: `Wrap the secrets that are on other versions of a keyring with the current one. The
secrets stay what they are, machines notice nothing, and roots of trust are asked
once for a version that is not in memory. Each is opened again and compared before
it is written.

It can be interrupted at any point and begun again: what is left to do is what is
not on the current version. What does not open stays as it is and is named; then
the exit code is 4.`,
		Args: exactly("KEYRING"),
		RunE: func(c *cobra.Command, args []string) error {
			if perSecond < 0 {
				return usagef("--rate is a number of secrets per second")
			}
			k, err := p.keyring(c.Context(), args[0])
			if err != nil {
				return err
			}
			r := &rewrapping{program: p, keyring: k.Name, limiter: limiterOf(perSecond), page: pageOfRate(perSecond)}
			if dryRun {
				return r.plan(c.Context(), perSecond)
			}
			return r.run(c.Context(), k)
		},
	}
	c.Flags().IntVar(&perSecond, "rate", 0, "secrets per second at most (default: as fast as the service does it; boots go first)")
	addDryRun(c, &dryRun)
	return c
}

func limiterOf(perSecond int) *rate.Limiter {
	if perSecond == 0 {
		return rate.NewLimiter(rate.Inf, rewrapPage)
	}
	return rate.NewLimiter(rate.Limit(perSecond), pageOfRate(perSecond))
}

func pageOfRate(perSecond int) int {
	if perSecond == 0 {
		return rewrapPage
	}
	return min(perSecond, rewrapPage)
}

// rewrapping is a rewrap under way.
type rewrapping struct {
	program *Program
	keyring string
	limiter *rate.Limiter
	page    int
	total   rewrapped
}

// rewrapped is what a rewrap prints.
type rewrapped struct {
	Keyring   string              `json:"keyring"`
	Current   uint32              `json:"current"`
	Done      int                 `json:"done"`
	Failed    []api.RewrapFailure `json:"failed"`
	Remaining int64               `json:"remaining"`
	RootCalls int                 `json:"root_calls"`
}

func (r *rewrapping) ask(ctx context.Context, after string, dryRun bool) (api.Rewrapped, error) {
	answer, err := call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (api.Rewrapped, error) {
		return acting(o, dryRun).RewrapKeyring(ctx, r.keyring, api.RewrapKeyring{After: after, Limit: r.page})
	})
	return on("keyring/"+r.keyring, answer, err)
}

func (r *rewrapping) run(ctx context.Context, k api.Keyring) error {
	if err := r.all(ctx, k); err != nil {
		return err
	}
	return r.report()
}

// all goes through the pages until a pass finds nothing more to do: a secret that
// changed while it was rewrapped, or was made meanwhile, is for the next pass.
func (r *rewrapping) all(ctx context.Context, k api.Keyring) error {
	progress := r.program.progress(onOthers(k))
	defer progress.end()
	for {
		done, err := r.pass(ctx, progress)
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("interrupted after %d secrets and keys of keyring/%s: run it again, and it goes on", r.total.Done, r.keyring)
		}
		if err != nil {
			return err
		}
		if done == 0 || r.total.Remaining == int64(len(r.total.Failed)) {
			return nil
		}
	}
}

func onOthers(k api.Keyring) (count int64) {
	for _, v := range k.Versions {
		if v.Version != k.Current {
			count += v.Dependents
		}
	}
	return count
}

// pass goes through the pages once. What failed in a pass before is found again.
func (r *rewrapping) pass(ctx context.Context, progress progress) (done int, err error) {
	r.total.Failed = []api.RewrapFailure{}
	for after := ""; ; {
		if err := r.limiter.WaitN(ctx, r.page); err != nil {
			return done, err
		}
		page, err := r.ask(ctx, after, false)
		if err != nil {
			return done, err
		}
		done += page.Done
		r.total.Keyring, r.total.Current, r.total.Remaining = page.Keyring, page.Current, page.Remaining
		r.total.Done, r.total.RootCalls = r.total.Done+page.Done, r.total.RootCalls+page.RootCalls
		r.total.Failed = append(r.total.Failed, page.Failed...)
		progress.done(r.total.Done, page.Remaining)
		if after = page.Next; after == "" {
			return done, nil
		}
	}
}

func (r *rewrapping) report() error {
	t := r.total
	err := r.program.print(t, func(w io.Writer) {
		fmt.Fprintf(w, "%d secrets and keys are wrapped with keyring/%s@%d now, with %d calls to roots\n", t.Done, t.Keyring, t.Current, t.RootCalls)
		for _, f := range t.Failed {
			fmt.Fprintf(w, "skipped %s, on %s: %s\n", describe(f.Dependent), f.Keyring, f.Detail)
		}
	})
	if err == nil && t.Remaining > 0 {
		return &partly{fmt.Errorf("keyring/%s: %d secrets or keys are not on version %d: %d do not open", t.Keyring, t.Remaining, t.Current, len(t.Failed))}
	}
	return err
}

// plan is what a dry run prints.
type plan struct {
	Keyring   string                `json:"keyring"`
	Current   uint32                `json:"current"`
	Counts    []api.DependentsCount `json:"counts"`
	Remaining int64                 `json:"remaining"`
	RootCalls int                   `json:"root_calls"`
	Seconds   float64               `json:"seconds"`
}

// plan has one page rewrapped and not written, and reckons from the time it took.
func (r *rewrapping) plan(ctx context.Context, perSecond int) error {
	census, err := r.program.census(ctx, r.keyring)
	if err != nil {
		return err
	}
	began := r.program.Clock()
	page, err := r.ask(ctx, "", true)
	if err != nil {
		return err
	}
	took := r.program.Clock().Sub(began)
	out := plan{Keyring: r.keyring, Current: page.Current, Counts: census.Counts, Remaining: page.Remaining, RootCalls: page.RootCalls}
	if tried := page.Done + len(page.Failed); tried > 0 {
		out.Seconds = took.Seconds() / float64(tried) * float64(page.Remaining)
	}
	if perSecond > 0 {
		out.Seconds = max(out.Seconds, float64(page.Remaining)/float64(perSecond))
	}
	return r.program.print(out, func(w io.Writer) {
		writeCounts(w, out.Counts)
		fmt.Fprintf(w, "would rewrap %d secrets and keys to version %d, with %d calls to roots, in about %s\n",
			out.Remaining, out.Current, out.RootCalls, time.Duration(out.Seconds*float64(time.Second)).Round(time.Second))
	})
}

// progress shows how far a rewrap is: a bar on a terminal, lines elsewhere.
type progress struct {
	done func(done int, remaining int64)
	end  func()
}

func (p *Program) progress(total int64) progress {
	if total > 0 && isTerminal(p.Err) {
		return barOf(p.Err, total)
	}
	logger, last := slog.New(slog.NewTextHandler(p.Err, nil)), p.Clock()
	began := last
	return progress{
		done: func(done int, remaining int64) {
			now := p.Clock()
			if now.Sub(last) < rewrapLogEvery {
				return
			}
			last = now
			perSecond := float64(done) / now.Sub(began).Seconds()
			left := time.Duration(float64(remaining) / max(perSecond, 1) * float64(time.Second)).Round(time.Second)
			logger.Info("rewrapping", "done", done, "remaining", remaining, "per_second", int(perSecond), "left", left.String())
		},
		end: func() {},
	}
}

func barOf(w io.Writer, total int64) progress {
	bars := mpb.New(mpb.WithOutput(w), mpb.WithWidth(64))
	bar := bars.AddBar(total,
		mpb.PrependDecorators(decor.Name("rewrapping "), decor.CountersNoUnit("%d / %d")),
		mpb.AppendDecorators(decor.AverageSpeed(0, "%.0f/s "), decor.AverageETA(decor.ET_STYLE_GO)),
	)
	ended := false
	return progress{
		done: func(done int, remaining int64) {
			bar.SetTotal(int64(done)+remaining, false)
			bar.SetCurrent(int64(done))
		},
		end: func() {
			if !ended {
				ended = true
				bar.Abort(false)
				bars.Wait()
			}
		},
	}
}
