package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/pharos-lb/pharos/internal/health/probe"
	"github.com/pharos-lb/pharos/internal/node"
)

// defaultConfig is where run and validate look first.
const defaultConfig = "/etc/pharos/pharos.yaml"

// logFlags are shared by the verbs that run for long.
type logFlags struct{ level, format string }

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&f.format, "log-format", "text", "text or json")
}

func (f *logFlags) logger(cmd *cobra.Command, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, usage(cmd, fmt.Errorf("--log-level %q: want debug, info, warn or error", f.level))
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usage(cmd, fmt.Errorf("--log-format %q: want text or json", f.format))
}

func newRun() *cobra.Command {
	opts := node.Options{Version: version}
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node",
		Long: `Run one node until SIGTERM or Ctrl-C, then lead names to other sites,
withdraw its routes, stop answering and let connections finish. SIGHUP reloads the configuration, as "pharos reload" does;
SIGUSR2 hands everything over to a new process, as "pharos upgrade" does.`,
		Example: `  pharos run --config pharos.yaml --node fra1
  pharos run --config pharos.yaml --state-dir ./state --socket ./pharos.sock --log-format json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.logger(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			opts.Log = log
			return runNode(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&opts.ConfigFile, "config", "c", defaultConfig, "configuration file")
	f.StringVar(&opts.Name, "node", "", "this node's name in the configuration (default: the host's name)")
	f.StringVar(&opts.StateDir, "state-dir", node.DefaultStateDir, "folder for what survives a restart")
	f.StringVar(&opts.Socket, "socket", "", "admin socket (default: admin.socket of the configuration)")
	logs.add(cmd)
	return cmd
}

func runNode(ctx context.Context, opts node.Options) (err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2) // from the first moment: they would end the process
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE) // who reads our output may go: a lost line is no reason to end
	if opts.Takeover, err = handover.Inherited(); err != nil {
		return err
	}
	if opts.Takeover != nil {
		defer func() {
			if err != nil {
				node.Failed(opts.Takeover, err) // if it is still there to be told
			}
		}()
	}
	opts.Arguments = os.Args[1:]
	if opts.Binary, err = programFile(); err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	n, err := node.New(opts)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals: // what follows logs how it went; status shows it
				if s == syscall.SIGUSR2 {
					n.Upgrade(ctx, admin.UpgradeRequest{})
				} else {
					n.Reload(ctx, admin.Allowed{})
				}
			case <-done:
				return
			}
		}
	}()
	return n.Run(ctx)
}

// programFile is the file that this program was started from, by the name that was used: what that is a link to may be
// another version after a while, and that is the one to start then.
func programFile() (string, error) {
	if file, err := exec.LookPath(os.Args[0]); err == nil {
		return filepath.Abs(file)
	}
	return os.Executable()
}

// newSpeaker is the hidden verb of the BGP child process.
func newSpeaker() *cobra.Command {
	return &cobra.Command{
		Use: node.SpeakerVerb, Hidden: true, Args: cobra.NoArgs,
		Short: "The BGP child process (started by run)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bgp.ChildMain(context.WithoutCancel(cmd.Context()), os.Stdin, os.Stdout, os.Stderr)
		},
	}
}

// newKeeper is the hidden verb of the processes that run the commands of checks.
func newKeeper() *cobra.Command {
	return &cobra.Command{
		Use: node.KeeperVerb, Hidden: true, Args: cobra.NoArgs,
		Short: "Runs the commands of exec checks (started by run)",
		RunE:  func(*cobra.Command, []string) error { return probe.KeeperMain(os.Stdin, os.Stdout) },
	}
}

// newCompiler is the hidden verb of the process that compiles large zones.
func newCompiler() *cobra.Command {
	return &cobra.Command{
		Use: node.CompilerVerb, Hidden: true, Args: cobra.NoArgs,
		Short: "Compiles zones (started by run)",
		RunE:  func(*cobra.Command, []string) error { return node.CompilerMain(os.Stdin, os.Stdout) },
	}
}

func newReload() *cobra.Command {
	var socket, format string
	var allow admin.Allowed
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the running node read its configuration again",
		Long: `Reload takes the whole new configuration or none of it: on any error the old one
stays in force and the error is printed. Connections and sessions that the change
does not concern go on. It returns when the new configuration is in force, which waits
for the first verdicts of what is new, at most for cluster.wait.`,
		Example: "  pharos reload\n  pharos reload --allow-remove     # more than a third of the services go\n  pharos reload --allow-withdraw   # a prefix that is announced goes",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			result, err := findClient(cmd, socket).Reload(cmd.Context(), allow)
			if err != nil {
				return fmt.Errorf("not reloaded, the old configuration stays: %w", err)
			}
			if format == formatJSON {
				return writeJSON(cmd.OutOrStdout(), result)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "reloaded, configuration "+result.Hash)
			for _, c := range result.Changes {
				fmt.Fprintln(cmd.OutOrStdout(), "  "+c)
			}
			return nil
		},
	}
	addSocket(cmd, &socket)
	addFormat(cmd, &format)
	cmd.Flags().BoolVar(&allow.Remove, "allow-remove", false, "permit losing more than a third of the services, zones, names or sites, or the last listener that an announced route leads to")
	cmd.Flags().BoolVar(&allow.Withdraw, "allow-withdraw", false, "permit withdrawing a route that is announced, the last site of a prefix, or more than a third of the prefixes")
	return cmd
}

func newVersion() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  pharos version\n  pharos version -o json", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			if format == formatJSON {
				return writeJSON(cmd.OutOrStdout(), map[string]string{"version": version, "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "pharos %s (%s)\n", version, runtime.Version())
			return err
		},
	}
	addFormat(cmd, &format)
	return cmd
}
