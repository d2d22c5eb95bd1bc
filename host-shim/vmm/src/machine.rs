//! Puts a machine together and runs it.
//!
//! Each CPU has a thread, which answers its accesses to registers; the main thread serves queues and what comes from
//! outside. Each device has a lock of its own.

use crate::{
    boot,
    bus::{Bus, lock},
    ending::Ending,
    events::{SerialEvents, VirtioEvents, Wake},
    input::Input,
    kvm::{Vcpu, Vm},
    layout,
    memory::Ram,
    options::{self, Options, Stdin},
    serial::{Output, SerialPort},
    virtio::{
        Device,
        balloon::Balloon,
        block::Block,
        console::Console,
        mmio::{Transport, register},
        net::{Net, responder::Responder, tap::Tap},
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use event_manager::{EventManager, MutEventSubscriber, SubscriberOps as _};
use std::{
    fs::File,
    io::stdout,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use vmm_sys_util::{
    eventfd::{EFD_NONBLOCK, EventFd},
    signal::{Killable as _, SIGRTMIN, register_signal_handler},
};

/// A machine that is ready to run.
#[derive(Debug)]
pub(crate) struct Machine {
    cpus: Vec<Vcpu>,
    bus: Bus,
    serial: Arc<Mutex<SerialPort>>,
    virtio: Vec<Arc<Mutex<Transport>>>,
    // The virtual machine goes before the memory that it was given.
    vm: Vm,
    ram: Arc<Ram>,
}

impl Machine {
    /// Makes the machine that `options` describe, with everything in its memory.
    ///
    /// # Errors
    /// If a file is missing, or the host cannot do what is asked for.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        ensure!(
            options.stdin != Stdin::Console || options.console.is_some(),
            "there is no console to type into"
        );
        let placement = boot::place(options)?;
        let devices = devices(options)?;
        ensure!(
            devices.len() <= layout::VIRTIO_DEVICES,
            "there is room for {} devices only",
            layout::VIRTIO_DEVICES
        );
        let (mut vm, ram) = Vm::new(options)?;
        let ram = Arc::new(ram);
        let cpus = vm.cpus(options.cpus)?;
        let mut machine = Self {
            cpus,
            bus: Bus::default(),
            serial: Arc::new(Mutex::new(SerialPort::new(
                Box::new(stdout()),
                input(options, Stdin::Serial)?,
            )?)),
            virtio: Vec::new(),
            vm,
            ram,
        };
        machine.add_serial()?;
        for device in devices {
            machine.add_virtio(device, placement.bounce.is_some())?;
        }
        let entry = boot::load(options, &placement, machine.virtio.len(), &machine.ram)?;
        machine.cpus[0].enter_at(entry)?;
        Ok(machine)
    }

    fn add_serial(&mut self) -> Result<()> {
        self.vm
            .connect_interrupt(lock(&self.serial).interrupt(), layout::SERIAL_INTERRUPT)?;
        self.bus.add(layout::SERIAL, layout::PAGE, self.serial.clone());
        Ok(())
    }

    fn add_virtio(&mut self, device: Box<dyn Device>, bounces: bool) -> Result<()> {
        let index = self.virtio.len();
        let address = layout::virtio(index);
        let transport = Transport::new(device, self.ram.clone(), bounces)?;
        self.vm
            .connect_interrupt(transport.interrupt().event(), layout::virtio_interrupt(index))?;
        for (queue, kick) in transport.kicks().iter().enumerate() {
            // A host that has no such short cut sends notifications the long way, to the transport's register.
            let _ = self
                .vm
                .connect_notification(kick, address + register::QUEUE_NOTIFY, queue as u32);
        }
        let transport = Arc::new(Mutex::new(transport));
        self.bus.add(address, layout::PAGE, transport.clone());
        self.virtio.push(transport);
        Ok(())
    }

    /// Runs the machine until the guest ends.
    ///
    /// # Errors
    /// If the host does not run it.
    pub(crate) fn run(&mut self) -> Result<Ending> {
        let mut events =
            EventManager::<Box<dyn MutEventSubscriber>>::new().context("cannot wait for events")?;
        for transport in &self.virtio {
            events.add_subscriber(Box::new(VirtioEvents::new(transport.clone())?));
        }
        events.add_subscriber(Box::new(SerialEvents(self.serial.clone())));
        let wake = EventFd::new(EFD_NONBLOCK).context("cannot make an event")?;
        events.add_subscriber(Box::new(Wake(wake.try_clone()?)));

        // A CPU that runs is got back by a signal; what it does there does not matter.
        register_signal_handler(SIGRTMIN(), ignore).context("cannot handle a signal")?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (sender, endings) = mpsc::channel();
        let mut threads = Vec::new();
        for mut cpu in self.cpus.drain(..) {
            let (bus, stopped, sender) = (self.bus.clone(), stopped.clone(), sender.clone());
            let wake = wake.try_clone()?;
            let thread = thread::Builder::new().name(format!("cpu-{}", cpu.index()));
            let run = move || {
                let ended = cpu.run(&bus, &stopped).transpose();
                if let Some(ended) = ended {
                    // The first one counts; nobody may be listening any more.
                    let _ = sender.send(ended);
                }
                let _ = wake.write(1);
            };
            threads.push(thread.spawn(run).context("cannot start a thread")?);
        }
        drop(sender);
        let ending = loop {
            match endings.try_recv() {
                Ok(ending) => break ending,
                Err(TryRecvError::Disconnected) => bail!("all CPUs have vanished"),
                Err(TryRecvError::Empty) => {}
            }
            events.run().context("cannot wait for events")?;
        };
        stopped.store(true, Ordering::Release);
        threads.into_iter().try_for_each(stop)?;
        ending
    }

    /// What the devices did, a line each.
    #[must_use]
    pub(crate) fn report(&self) -> Vec<String> {
        let mut lines: Vec<_> = self
            .virtio
            .iter()
            .map(|transport| lock(transport).device().report())
            .collect();
        lines.push(format!("memory refused={}", self.ram.refused()));
        lines
    }
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Gets a CPU's thread back.
fn stop(thread: JoinHandle<()>) -> Result<()> {
    // The signal is lost on a thread that is not yet where it would be interrupted, so it gets another.
    while !thread.is_finished() {
        let _ = thread.kill(SIGRTMIN());
        thread::sleep(Duration::from_millis(1));
    }
    thread.join().ok().context("the thread of a CPU has panicked")
}

fn devices(options: &Options) -> Result<Vec<Box<dyn Device>>> {
    let mut devices: Vec<Box<dyn Device>> = Vec::new();
    for disk in &options.disk {
        devices.push(Box::new(Block::open(&disk.file, disk.read_only)?));
    }
    match &options.net {
        Some(options::Net::Responder) => devices.push(Box::new(Net::new(Box::new(Responder::default())))),
        Some(options::Net::Tap(name)) => devices.push(Box::new(Net::new(Box::new(Tap::open(name)?)))),
        None => {}
    }
    if let Some(file) = &options.console {
        let input = input(options, Stdin::Console)?;
        devices.push(Box::new(Console::new(output(file)?, input)));
    }
    if let Some(size) = options.balloon {
        devices.push(Box::new(Balloon::new(size.0)));
    }
    Ok(devices)
}

fn input(options: &Options, device: Stdin) -> Result<Input> {
    if options.stdin == device {
        Input::standard().context("cannot read standard input")
    } else {
        Ok(Input::none())
    }
}

fn output(file: &Path) -> Result<Output> {
    if file == Path::new("-") {
        return Ok(Box::new(stdout()));
    }
    let file = File::options()
        .append(true)
        .create(true)
        .open(file)
        .with_context(|| format!("cannot open {}", file.display()))?;
    Ok(Box::new(file))
}
