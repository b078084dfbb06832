package dnslb
import ("net";"testing";"time";"fmt";"os/exec";"runtime/pprof";"os")
func TestDbg(t *testing.T){
	s := start(t, Options{Tunables: Tunables{TCPIdle: time.Hour}})
	conn := dial(t, s)
	conn.(*net.TCPConn).SetReadBuffer(4096); m := frame(t, query("big.example.com.", "TXT"))
	st:=time.Now()
	go func(){ time.Sleep(7*time.Second); fmt.Println(time.Since(st), s.metrics.total().queries[1].Load(), s.pool.Open())
	 time.Sleep(2*time.Second); fmt.Println(time.Since(st), s.metrics.total().queries[1].Load(), s.pool.Open())
	out,_:=exec.Command("ss","-tnmoi","src","127.0.0.1").CombinedOutput(); fmt.Println(string(out))
	pprof.Lookup("goroutine").WriteTo(os.Stdout,2); os.Exit(1)}()
	n:=0
	conn.SetDeadline(time.Now().Add(14*time.Second))
	for { if _,err:=conn.Write(m);err!=nil{fmt.Println(n,err,time.Since(st));return}; n++ }
}
