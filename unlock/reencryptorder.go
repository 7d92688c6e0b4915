package unlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// StepReportReencrypted reports that a reencryption has ended.
const StepReportReencrypted Step = "report-reencrypted"

// progressEvery is how often the service hears how far a reencryption has come.
const progressEvery = 30 * time.Second

// reencrypt does what is ordered of a volume whose rekey is over, from wherever it was
// cut: each stage is the service's to let begin.
func (r *Rekeyer) reencrypt(ctx context.Context, v Volume, s *exchange.ReleasedSecret) error {
	o := r.order(v, s)
	done, err := o.reencryptOnDisk(ctx, s)
	if err != nil && ctx.Err() == nil {
		o.tellFault(ctx, err)
	}
	if err != nil {
		return err
	}
	o.shown.Identity = done.Identity
	details := exchange.RekeyedDetails{Version: s.Version, Volume: done.Report, Reencryption: exchange.StageDone}
	if err := o.report(ctx, StepReportReencrypted, details, exchange.RekeyFinished); err != nil {
		return fmt.Errorf("reporting that volume/%s is reencrypted: %w", v.ID, err)
	}
	o.say("note: volume/%s on %s is reencrypted", v.ID, v.Device.Name())
	return nil
}

func (o *rekeyOrder) reencryptOnDisk(ctx context.Context, s *exchange.ReleasedSecret) (Reencrypted, error) {
	watch := &progressWatch{clock: o.Clock, report: func(ctx context.Context, p luks.Progress, about exchange.VolumeReport) {
		o.tellProgress(ctx, s.Version, p, about)
	}}
	job := Reencrypting{
		Device: o.volume.Device.Name(), Volume: o.volume.ID, UUID: o.shown.UUID, Identity: s.Reencrypt.From, Begun: s.Reencrypt.Begun,
		Secret: o.current, Recovery: SecretVersion{s.RecoveryVersion, s.Recovery}, Lose: s.Reencrypt.Lose,
		Closed: checkUnused(o.volume.Device.Name()) == nil, Progress: watch.note, Rate: s.Reencrypt.Rate, Clock: o.Clock,
		Cryptsetup: o.Cryptsetup, RunDir: o.RunDir, Out: o.Out,
		Tell: func(ctx context.Context, stage exchange.Stage, v exchange.Volume, about exchange.VolumeReport) error {
			o.shown = v
			if stage == exchange.StageBegun {
				defer watch.begin(ctx, about)
			}
			return o.tellStage(ctx, s.Version, stage, about)
		},
	}
	done, err := job.Run(ctx)
	watch.end()
	return done, err
}

// ErrWaits is returned where the service waits for an operator.
var ErrWaits = errors.New("keyslots would be lost, and nobody agreed to that yet: keywright volume show names them")

func (o *rekeyOrder) tellStage(ctx context.Context, version uint32, stage exchange.Stage, about exchange.VolumeReport) error {
	want := exchange.RekeyReady
	if stage == exchange.StageBegun {
		want = exchange.RekeyReencrypting
	}
	details := exchange.RekeyedDetails{Version: version, Volume: about, Reencryption: stage}
	answer, err := o.tellQuietly(ctx, details)
	if err == nil && stage == exchange.StageReady && answer.Status == exchange.RekeyRekeyed {
		return ErrWaits
	}
	if err == nil {
		err = demand(answer, details, want)
	}
	return err
}

// tellFault reports why it failed, with the header as it is now.
func (o *rekeyOrder) tellFault(ctx context.Context, why error) {
	if errors.Is(why, ErrWaits) {
		return // the service knows
	}
	v, err := o.volume.fresh()
	if err == nil {
		o.shown = v.named()
		var about exchange.VolumeReport
		if about, err = v.reportOfFault(); err == nil {
			_, err = o.tell(ctx, StepReportFault, exchange.RekeyedDetails{Version: o.current.Number, Volume: about, Fault: faultOf(why)})
		}
	}
	if err != nil {
		o.say("note: the service does not know of it: %v", err)
	}
}

// reportOfFault leaves out what a run left that was cut as it began, which the next one
// kills: nobody has to agree to that.
func (v *Volume) reportOfFault() (exchange.VolumeReport, error) {
	about, err := v.report()
	if err != nil || v.LUKS == nil {
		return about, err
	}
	left := v.LUKS.Leftover()
	about.Slots = slices.DeleteFunc(about.Slots, func(s exchange.LUKSSlot) bool { return slices.Contains(left, s.ID) })
	return about, nil
}

// tellProgress reports how far it has come. What it cannot report is reported the next
// time: nothing waits for it.
func (o *rekeyOrder) tellProgress(ctx context.Context, version uint32, p luks.Progress, about exchange.VolumeReport) {
	details := exchange.RekeyedDetails{
		Version: version, Volume: about, Reencryption: exchange.StageProgress,
		Progress: &exchange.Progress{Done: p.Done, Total: p.Total, Rate: p.Rate, Left: uint64(p.Left / time.Second)},
	}
	if _, err := o.once(ctx, details); err != nil && ctx.Err() == nil {
		o.say("note: the service does not know how far it is: %v", err)
	}
}

// progressWatch has the latest of what is noted reported now and then.
type progressWatch struct {
	clock  Clock
	report func(ctx context.Context, p luks.Progress, about exchange.VolumeReport)

	mu     sync.Mutex
	latest *luks.Progress

	stop func()
	done chan struct{}
}

func (w *progressWatch) note(p luks.Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest = &p
}

// take returns what was not reported yet; nil where nothing is.
func (w *progressWatch) take() *luks.Progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.latest
	w.latest = nil
	return p
}

// begin begins to report, of the header that about is of.
func (w *progressWatch) begin(ctx context.Context, about exchange.VolumeReport) {
	ctx, w.stop = context.WithCancel(ctx)
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		for w.clock.Sleep(ctx, progressEvery) == nil {
			if p := w.take(); p != nil {
				w.report(ctx, *p, about)
			}
		}
	}()
}

// end waits until nothing is reported any more.
func (w *progressWatch) end() {
	if w.stop == nil {
		return
	}
	w.stop()
	<-w.done
}
