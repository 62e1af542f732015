{
  description = "Live dubbing worker: RTSP in, speech-to-speech over Socket.IO, RTMP out";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];

      manifest = lib.importTOML ./Cargo.toml;
      inherit (manifest.workspace.package) version;

      # Our crates: their folders, and their names for cargo's command line.
      inherit (manifest.workspace) members;
      ours = lib.concatMapStringsSep " " (
        member: "--package ${(lib.importTOML (./. + "/${member}/Cargo.toml")).package.name}"
      ) members;

      # Everything Cargo and the tests read. Documents and this file are part of it, because
      # `cargo xtask tidy` compares them with the code.
      src = lib.fileset.toSource {
        root = ./.;
        fileset = lib.fileset.unions [
          ./.cargo
          ./.ci
          ./.github
          ./Cargo.lock
          ./Cargo.toml
          ./CHANGELOG.md
          ./CONTRIBUTING.md
          ./README.md
          ./clippy.toml
          ./deny.toml
          ./docs
          ./e2e
          ./echo-sts
          ./fixtures
          ./flake.lock
          ./flake.nix
          ./rustfmt.toml
          ./worker
          ./xtask
        ];
      };

      outputsFor =
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};

          # The plugins behind the elements in xtask/src/requirements.rs; `cargo xtask tidy`
          # keeps the two in step.
          gstPackages = with pkgs.gst_all_1; [
            gstreamer
            gst-plugins-base
            gst-plugins-good
            gst-plugins-bad
            gst-libav
          ];

          libraries = gstPackages ++ [
            pkgs.openssl
            pkgs.glib-networking
          ];

          toolchain = [
            pkgs.cargo
            pkgs.clippy
            pkgs.rustc
            pkgs.rustfmt
            pkgs.pkg-config
          ];

          # An STS service as others write it, for the tests; no network there, so no pip.
          python = pkgs.python3.withPackages (
            packages: with packages; [
              python-socketio
              uvicorn
              websockets
            ]
          );

          # Programs the suite starts.
          programs = [
            python
            pkgs.ffmpeg-headless
            pkgs.gst_all_1.gstreamer
            pkgs.mediamtx
          ];

          # Set, not prefixed: plugins of the host must not mix with ours. The `lib` output falls
          # back to `out`, where gstreamer keeps its core elements; its default output is `bin`.
          gstPluginPath = lib.makeSearchPathOutput "lib" "lib/gstreamer-1.0" gstPackages;
          # TLS for rtsps:// and rtmps://.
          gioModules = "${lib.getLib pkgs.glib-networking}/lib/gio/modules";

          # What compiling needs to know before there is any code of ours: it changes seldom.
          manifests = lib.fileset.toSource {
            root = ./.;
            fileset = lib.fileset.unions (
              [
                ./.cargo
                ./Cargo.lock
                ./Cargo.toml
              ]
              ++ map (member: ./. + "/${member}/Cargo.toml") members
            );
          };

          cargoDeps = pkgs.rustPlatform.importCargoLock { lockFile = ./Cargo.lock; };

          # Every crate of others, compiled once for all that follows, with an empty crate in the place of
          # each of ours. What is made of those is taken out again: it would pass for newer than our
          # sources, which are as old as everything in the store. In an archive, because the times of
          # files count, and the store keeps none.
          artifacts = pkgs.stdenv.mkDerivation {
            name = "dubbing-artifacts";
            src = manifests;
            inherit cargoDeps;
            nativeBuildInputs = toolchain ++ [ pkgs.rustPlatform.cargoSetupHook ];
            buildInputs = libraries;
            dontConfigure = true;
            dontFixup = true;
            buildPhase = ''
              runHook preBuild
              export CARGO_NET_OFFLINE=true
              for member in ${toString members}; do
                mkdir -p "$member/src" "$member/tests/e2e"
                echo > "$member/src/lib.rs"
                echo 'fn main() {}' | tee "$member/src/main.rs" > "$member/tests/e2e/main.rs"
              done
              cargo build --release --package worker --package echo-sts
              cargo clippy --workspace --all-targets
              cargo test --workspace --no-run
              cargo test --workspace --exclude xtask --no-run
              cargo build --package xtask
              cargo clean --offline ${ours}
              cargo clean --offline --release ${ours}
              mkdir -p "$out"
              tar --create --file "$out/target.tar" target
              runHook postBuild
            '';
            dontInstall = true;
          };

          # Puts the archive where cargo looks for it.
          withArtifacts = "tar --extract --file ${artifacts}/target.tar";

          # Both programs in one go: they share most of what they are made of.
          compiled = pkgs.stdenv.mkDerivation {
            name = "dubbing-compiled-${version}";
            inherit src cargoDeps;
            # There is no .git in the source; see worker/build.rs.
            env.WORKER_COMMIT = self.shortRev or self.dirtyShortRev or "unknown";
            nativeBuildInputs = toolchain ++ [ pkgs.rustPlatform.cargoSetupHook ];
            buildInputs = libraries;
            dontConfigure = true;
            buildPhase = ''
              runHook preBuild
              export CARGO_NET_OFFLINE=true
              ${withArtifacts}
              cargo build --release --package worker --package echo-sts
              runHook postBuild
            '';
            installPhase = ''
              runHook preInstall
              install -D --target-directory "$out/bin" target/release/worker target/release/echo-sts
              runHook postInstall
            '';
          };

          # Binaries find their plugins without a shell around them.
          wrapped =
            crate:
            pkgs.stdenv.mkDerivation {
              pname = crate;
              inherit version;
              dontUnpack = true;
              nativeBuildInputs = [ pkgs.makeBinaryWrapper ];
              installPhase = ''
                runHook preInstall
                makeWrapper ${compiled}/bin/${crate} $out/bin/${crate} \
                  --set GST_PLUGIN_SYSTEM_PATH_1_0 ${gstPluginPath} \
                  --prefix GIO_EXTRA_MODULES : ${gioModules}
                runHook postInstall
              '';
              meta = {
                mainProgram = crate;
                license = with lib.licenses; [
                  mit
                  asl20
                ];
                platforms = systems;
              };
            };

          worker = wrapped "worker";
          echo-sts = wrapped "echo-sts";

          # Plain cargo commands in a sandbox, on vendored crates.
          cargoRun =
            name: script:
            pkgs.stdenv.mkDerivation {
              inherit name src cargoDeps;
              nativeBuildInputs = toolchain ++ programs ++ [ pkgs.rustPlatform.cargoSetupHook ];
              buildInputs = libraries;
              env = {
                GST_PLUGIN_SYSTEM_PATH_1_0 = gstPluginPath;
                GIO_EXTRA_MODULES = gioModules;
                E2E_PYTHON = "${python}/bin/python3";
                # Snapshots are compared, never written.
                CI = "true";
                INSTA_UPDATE = "no";
              };
              dontConfigure = true;
              dontFixup = true;
              buildPhase = ''
                runHook preBuild
                # GStreamer, fontconfig and insta want a home; the sandbox has none.
                export HOME="$TMPDIR" XDG_CACHE_HOME="$TMPDIR/cache" GST_REGISTRY="$TMPDIR/registry.bin"
                export CARGO_NET_OFFLINE=true
                mkdir -p "$out"
                ${withArtifacts}
                ${script}
                runHook postBuild
              '';
              dontInstall = true;
            };

          # Always builds, whatever the suite says: a failed derivation would take its reports
          # with it. `checks.e2e` passes judgement.
          e2e-report = cargoRun "e2e-report" ''
            export E2E_MEDIA_SERVER=mediamtx
            export E2E_ARTIFACTS_DIR="$out/e2e"
            cargo build --workspace --exclude xtask --bins
            set -o pipefail
            status=0
            cargo test --workspace --exclude xtask --test e2e 2>&1 | tee "$out/output.txt" || status=$?
            echo "$status" > "$out/status"
          '';

          # `nix run .#e2e`: the checkout's own xtask, inside the dev shell.
          inShell =
            name: command:
            let
              program = pkgs.writeShellApplication {
                inherit name;
                text = ''
                  if ! [ -f xtask/Cargo.toml ]; then
                    echo "run this inside a checkout of the project" >&2
                    exit 3
                  fi
                  exec nix --extra-experimental-features 'nix-command flakes' develop \
                    --command cargo xtask ${command} "$@"
                '';
              };
            in
            {
              type = "app";
              program = lib.getExe program;
              meta.description = "cargo xtask ${command}, inside the dev shell";
            };

          appOf = package: description: {
            type = "app";
            program = lib.getExe package;
            meta = { inherit description; };
          };
        in
        {
          devShell = pkgs.mkShell {
            packages =
              toolchain
              ++ programs
              ++ [
                pkgs.cargo-deny
                pkgs.cargo-insta
                pkgs.cargo-nextest
                pkgs.rust-analyzer
              ];
            buildInputs = libraries;
            env = {
              GST_PLUGIN_SYSTEM_PATH_1_0 = gstPluginPath;
              GIO_EXTRA_MODULES = gioModules;
              MEDIAMTX_BIN = lib.getExe pkgs.mediamtx;
              E2E_PYTHON = "${python}/bin/python3";
            };
          };

          packages = {
            inherit worker echo-sts e2e-report;
            default = pkgs.symlinkJoin {
              name = "dubbing-${version}";
              paths = [
                worker
                echo-sts
              ];
              meta.mainProgram = "worker";
            };
          };

          apps = {
            worker = appOf worker "Dub one live stream";
            echo-sts = appOf echo-sts "STS stand-in that echoes what it gets";
            e2e = inShell "dubbing-e2e" "e2e";
            demo = inShell "dubbing-demo" "demo";
            default = appOf worker "Dub one live stream";
          };

          checks = {
            inherit worker echo-sts;

            fmt = cargoRun "check-fmt" ''
              cargo fmt --all --check
            '';

            tidy = cargoRun "check-tidy" ''
              cargo run --package xtask -- tidy
            '';

            clippy = cargoRun "check-clippy" ''
              cargo clippy --workspace --all-targets -- --deny warnings
            '';

            # Unit, simulation and integration tests, and the committed clips.
            test = cargoRun "check-test" ''
              cargo run --package xtask -- test unit fixtures
            '';

            e2e = pkgs.runCommand "check-e2e" { } ''
              cat ${e2e-report}/output.txt
              [ "$(cat ${e2e-report}/status)" = 0 ]
              touch "$out"
            '';

            # One page per scenario, and each readable offline.
            report = pkgs.runCommand "check-report" { } ''
              shopt -s nullglob globstar
              pages=(${e2e-report}/e2e/**/*.html)
              echo "''${#pages[@]} pages"
              [ "''${#pages[@]}" -ge 1 ]
              if grep -lE '(src|href)="?(https?:)?//' "''${pages[@]}"; then
                echo "these pages load something from the network" >&2
                exit 1
              fi
              touch "$out"
            '';

            nixfmt = pkgs.runCommand "check-nixfmt" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
              nixfmt --check ${./flake.nix}
              touch "$out"
            '';
          };

          formatter = pkgs.nixfmt-tree;
        };

      perSystem = lib.genAttrs systems outputsFor;
      each = name: lib.mapAttrs (_: outputs: outputs.${name}) perSystem;
    in
    {
      devShells = lib.mapAttrs (_: outputs: { default = outputs.devShell; }) perSystem;
      packages = each "packages";
      apps = each "apps";
      checks = each "checks";
      formatter = each "formatter";
    };
}
