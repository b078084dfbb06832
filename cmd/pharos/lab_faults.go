package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/internal/lab"
)

// newLabFaults are the verbs that do one thing to the running lab.
func newLabFaults() []*cobra.Command {
	var out []*cobra.Command
	for _, f := range []struct {
		kind             lab.FaultKind
		args, short, try string
		oneWay           bool
	}{
		{lab.FaultCut, "A B", "Let nothing through between two sites or nodes", "fra iad", true},
		{lab.FaultDrop, "A B PERCENT%", "Lose a share of the packets between two sites or nodes", "fra iad 20%", true},
		{lab.FaultIsolate, "A", "Cut a site or node from everything else", "fra", false},
		{lab.FaultHeal, "[A [B]]", "Take back what was done", "fra", false},
		{lab.FaultKill, "NODE", "Kill a node's process (SIGKILL)", "fra1", false},
		{lab.FaultFreeze, "NODE", "Stop a node's process (SIGSTOP)", "fra1", false},
		{lab.FaultThaw, "NODE", "Let a frozen node go on", "fra1", false},
		{lab.FaultRestart, "NODE", "Stop a node in order and start it again, or start a killed one", "fra1", false},
		{lab.FaultWipe, "NODE", "Kill a node, delete its state and start it", "fra1", false},
		{lab.FaultFillDisk, "NODE", "Fill the disk of a node's state folder", "fra1", false},
		{lab.FaultFreeDisk, "NODE", "Give a node's disk room again", "fra1", false},
		{lab.FaultClock, "NODE OFFSET", "Shift a node's wall clock, now and after restarts", "fra1 +1h", false},
		{lab.FaultBackend, "ADDRESS:PORT|SITE|SERVICE@SITE down|up", "Stop or start backends", "fra down", false},
	} {
		out = append(out, newLabFault(f.kind, f.args, f.short, f.try, f.oneWay))
	}
	return out
}

func newLabFault(kind lab.FaultKind, args, short, try string, oneWay bool) *cobra.Command {
	var name string
	var single bool
	cmd := &cobra.Command{
		Use:     string(kind) + " " + args,
		Short:   short,
		Long:    short + ". It takes effect in the running lab at once, until it is taken back.",
		Example: fmt.Sprintf("  sudo pharos lab %s %s", kind, try),
		Args:    usageArgs(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.DisableFlagParsing {
				var err error
				if args, err = splitOffset(cmd, args); err != nil || args == nil {
					return err
				}
			}
			words := append([]string{string(kind)}, args...)
			if single {
				words = append(words, "one-way")
			}
			fault, err := lab.ParseFault(words)
			if err != nil {
				return usage(cmd, err)
			}
			return say(cmd)(lab.NewClient(name).Do(cmd.Context(), fault))
		},
	}
	cmd.DisableFlagParsing = kind == lab.FaultClock // "-1h" is an offset, not a flag
	addLabName(cmd, &name)
	if oneWay {
		cmd.Flags().BoolVar(&single, "one-way", false, "only from A to B")
	}
	return cmd
}

// splitOffset parses the flags among args and returns the rest, with offsets
// like "-1h" at the end; nil when help was asked for and given.
func splitOffset(cmd *cobra.Command, args []string) ([]string, error) {
	var flags, offsets []string
	for _, a := range args {
		if len(a) > 1 && a[0] == '-' && a[1] >= '0' && a[1] <= '9' {
			offsets = append(offsets, a)
		} else {
			flags = append(flags, a)
		}
	}
	if err := cmd.Flags().Parse(flags); err != nil {
		return nil, usage(cmd, err)
	}
	if help, err := cmd.Flags().GetBool("help"); help && err == nil {
		return nil, cmd.Help()
	}
	return append(cmd.Flags().Args(), offsets...), nil
}
