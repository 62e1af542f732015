# One job a stream: nomad job run -var stream=news dub-worker.nomad.hcl. The URL with the stream key is the Nomad variable
# nomad/jobs/dub-news. A drain may take a minute, which a client allows only with `client { max_kill_timeout = "60s" }`: 30 s otherwise.
variable "stream" {
  type = string
}

job "dub-worker" {
  # Without it the label above is the job's ID, and the second stream would take the place of the first.
  id   = "dub-${var.stream}"
  name = "dub-${var.stream}"
  type = "service"

  group "worker" {
    count = 1
    # The stream has one name at the RTMP server: the successor starts after the predecessor has drained.
    update { max_parallel = 1 }
    network {
      port "metrics" {}
    }
    # A worker ends once in 5 s at most: never too often.
    restart {
      attempts = 100
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    task "worker" {
      driver       = "exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "60s"

      config {
        # Nomad restarts by count, not by exit code: 2, 11 and 14 would only come back, so they wait for a person.
        # The shell passes the signal on, a moment later (a child that is not the worker yet would lose it), and waits for the drain.
        command = "/bin/sh"
        args = ["-c", <<-EOF
          trap 'stop=1; [ "$!" ] || exit 143; sleep 0.2; kill -TERM $! 2>/dev/null' TERM
          /usr/local/bin/worker &
          wait $!; code=$?
          while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
          case $code in 2 | 11 | 14) while [ -z "$stop" ]; do sleep 5 & wait $!; done ;; esac
          exit $code
        EOF
        ]
      }

      env {
        WORKER_STREAM_ID       = var.stream
        WORKER_OUTPUT_URL_FILE = "${NOMAD_SECRETS_DIR}/output-url"
        WORKER_SEGMENT_DIR     = "${NOMAD_ALLOC_DIR}/segments"
        WORKER_METRICS_ADDR    = "0.0.0.0:${NOMAD_PORT_metrics}"
        LOG_FORMAT             = "json"
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/output-url"
        data        = "{{ with nomadVar \"nomad/jobs/dub-${var.stream}\" }}{{ .output_url }}{{ end }}"
      }

      resources {
        cpu    = 200
        memory = 256
      }

      service {
        name     = "dub-worker"
        port     = "metrics"
        provider = "nomad"
        check {
          type     = "http"
          path     = "/readyz"
          interval = "10s"
          timeout  = "2s"
        }
      }
    }
  }
}
