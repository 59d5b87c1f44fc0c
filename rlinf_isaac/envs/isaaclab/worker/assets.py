"""The USD files of IsaacLab's Franka tasks on a table below ``ISAACSIM_ASSET_ROOT``, or stand-ins for them.

NVIDIA keeps the original files on a server. The stand-ins are built from primitives with published numbers and have the
paths that the tasks load: kinematics and sizes are the same, shapes, masses, friction and colours differ. They are
written with ``pxr`` as text, so that the same code gives the same bytes.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import newton_usd_schemas  # noqa: F401  (pxr knows only schemas that are registered before it opens its first stage)
import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, UsdShade

from rlinf_isaac.envs.isaaclab import kinematics
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.ground.digest import file_digest, json_digest

GROUND = "Isaac/IsaacLab/Environments/Grid/default_ground_plane_checker_v1/default_ground_plane.usda"
ROBOT = "Isaac/IsaacLab/Robots/FrankaEmika/franka_panda.usda"
TABLE = "Isaac/Props/Mounts/SeattleLabTable/table_instanceable.usd"
BLOCK = "Isaac/Props/Blocks/{colour}_block.usd"
DEX_CUBE = "Isaac/Props/Blocks/DexCube/dex_cube_instanceable.usd"
"""The cube of the lift tasks, which scale it to 0.8."""

Vector = tuple[float, float, float]

FRICTION = 2.0  # of fingers and cubes
CUBE_MASS = 0.05
ARM_STIFFNESS, ARM_DAMPING = 400.0, 80.0  # N m/rad, N m s/rad: FRANKA_PANDA_HIGH_PD_CFG
FINGER_STIFFNESS, FINGER_DAMPING = 400.0, 30.0  # N/m, N s/m; stiffer fingers sink into a cube, and lose it

CUBE_COLOURS: dict[str, Vector] = {"blue": (0.1, 0.27, 0.84), "red": (0.84, 0.13, 0.11), "green": (0.12, 0.62, 0.24)}
WHITE, DARK, WOOD = (0.92, 0.92, 0.92), (0.25, 0.25, 0.25), (0.55, 0.42, 0.30)
FLOOR, LEG = (0.35, 0.35, 0.35), (0.30, 0.30, 0.30)
DEX_CUBE_SIZE, ORANGE = 0.06, (0.90, 0.45, 0.10)

# link -> mass, and size and centre of its box in the link's frame. Only the hand and the fingers collide.
LINKS: dict[str, tuple[float, Vector, Vector]] = {
    "panda_link0": (2.9, (0.14, 0.19, 0.14), (-0.04, 0.0, 0.07)),
    "panda_link1": (2.7, (0.11, 0.11, 0.24), (0.0, 0.0, -0.10)),
    "panda_link2": (2.7, (0.11, 0.24, 0.11), (0.0, -0.10, 0.0)),
    "panda_link3": (2.4, (0.11, 0.11, 0.20), (0.0, 0.0, -0.08)),
    "panda_link4": (2.4, (0.11, 0.20, 0.10), (-0.06, 0.10, 0.0)),
    "panda_link5": (2.7, (0.10, 0.10, 0.26), (0.0, 0.02, -0.14)),
    "panda_link6": (1.5, (0.12, 0.08, 0.08), (0.04, 0.0, 0.0)),
    "panda_link7": (0.45, (0.07, 0.07, 0.06), (0.0, 0.0, 0.06)),
    "panda_hand": (0.68, (0.05, 0.20, 0.05), (0.0, 0.0, 0.035)),
    "panda_leftfinger": (0.1, (0.02, 0.015, 0.05), (0.0, 0.0075, 0.028)),
    "panda_rightfinger": (0.1, (0.02, 0.015, 0.05), (0.0, 0.0075, 0.028)),
}


def digest(root: Path) -> str:
    """sha256 of the files that the task loads from `root` and of all layers to which they refer, without textures.

    Raises:
        FileNotFoundError: a file is missing.
    """
    names = [GROUND, ROBOT, TABLE, *(BLOCK.format(colour=colour) for colour in CUBE_COLOURS)]
    if missing := [name for name in names if not (root / name).is_file()]:
        raise FileNotFoundError(f"{root} (ISAACSIM_ASSET_ROOT) has no {', '.join(missing)}")
    stages = [Usd.Stage.Open(str(root / name)) for name in names]  # kept, because a layer is freed with its stage
    layers = {layer.realPath for stage in stages for layer in stage.GetUsedLayers()}
    return json_digest({os.path.relpath(path, root): file_digest(path) for path in sorted(layers) if path})


def hand_path(root: Path) -> str:
    """Path of the hand in the robot's file, relative to the robot. The wrist camera is attached to it."""
    stage = Usd.Stage.Open(str(root / ROBOT))
    robot = stage.GetDefaultPrim().GetPath()
    (hand,) = (prim.GetPath() for prim in stage.Traverse() if prim.GetName() == kinematics.HAND)
    return str(hand.MakeRelativePath(robot))


def write_assets(root: Path) -> None:
    """Write all files below `root`, replacing existing ones."""
    _ground(root / GROUND)
    _robot(root / ROBOT)
    _table(root / TABLE)
    for colour, rgb in CUBE_COLOURS.items():
        _block(root / BLOCK.format(colour=colour), rgb, contract.CUBE_SIZE)
    _block(root / DEX_CUBE, ORANGE, DEX_CUBE_SIZE)


def _stage(name: str) -> Usd.Stage:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, f"/{name}").GetPrim())
    return stage


def _write(stage: Usd.Stage, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stage.GetRootLayer().ExportToString())  # text also in .usd files: USD recognises it by its content


def _box(stage: Usd.Stage, path: str, size: Vector, centre: Vector, colour: Vector, *, collides: bool) -> Usd.Prim:
    """Add a box. With `collides` it gets a collision shape."""
    cube = UsdGeom.Cube.Define(stage, path)
    cube.CreateSizeAttr(1.0)
    cube.AddTranslateOp().Set(Gf.Vec3d(*centre))
    cube.AddScaleOp().Set(Gf.Vec3f(*size))
    cube.CreateDisplayColorAttr([Gf.Vec3f(*colour)])
    if collides:
        UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
    return cube.GetPrim()


def _bind_friction(stage: Usd.Stage, prim: Usd.Prim, path: str) -> None:
    material = UsdShade.Material.Define(stage, path)
    physics = UsdPhysics.MaterialAPI.Apply(material.GetPrim())
    physics.CreateStaticFrictionAttr(FRICTION)
    physics.CreateDynamicFrictionAttr(FRICTION)
    UsdShade.MaterialBindingAPI.Apply(prim).Bind(material, UsdShade.Tokens.weakerThanDescendants, "physics")


def _ground(path: Path) -> None:
    stage = _stage("GroundPlane")
    UsdGeom.Xform.Define(stage, "/GroundPlane/Environment").AddScaleOp().Set(Gf.Vec3f(1, 1, 1))
    mesh = UsdGeom.Mesh.Define(stage, "/GroundPlane/Environment/Geometry")
    mesh.CreatePointsAttr([Gf.Vec3f(x, y, 0) for x, y in ((-50, -50), (50, -50), (50, 50), (-50, 50))])
    mesh.CreateFaceVertexCountsAttr([4])
    mesh.CreateFaceVertexIndicesAttr([0, 1, 2, 3])
    mesh.CreateDisplayColorAttr([Gf.Vec3f(*FLOOR)])
    coordinates = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, "faceVarying")
    coordinates.Set([Gf.Vec2f(0, 0)] * 4)
    plane = UsdGeom.Plane.Define(stage, "/GroundPlane/CollisionPlane")
    plane.CreateAxisAttr("Z")
    plane.CreatePurposeAttr("guide")
    UsdPhysics.CollisionAPI.Apply(plane.GetPrim())
    UsdGeom.Scope.Define(stage, "/GroundPlane/Looks")
    UsdShade.Material.Define(stage, "/GroundPlane/Looks/theGrid")
    UsdShade.Shader.Define(stage, "/GroundPlane/Looks/theGrid/Shader")
    _write(stage, path)


def _table(path: Path) -> None:
    stage = _stage("table")
    size, centre = (1.0, 1.4, 0.05), (0.0, 0.0, contract.TABLE_HEIGHT - 0.025)
    _box(stage, "/table/visuals/top", size, centre, WOOD, collides=False)
    UsdGeom.Imageable(_box(stage, "/table/collisions/top", size, centre, WOOD, collides=True)).CreatePurposeAttr(
        "guide"
    )
    for i, (x, y) in enumerate(((-0.45, -0.65), (0.45, -0.65), (-0.45, 0.65), (0.45, 0.65))):
        _box(stage, f"/table/leg_{i}", (0.05, 0.05, 1.0), (x, y, -0.55), LEG, collides=False)
    _write(stage, path)


def _block(path: Path, colour: Vector, side: float) -> None:
    stage = _stage("block")
    root = stage.GetDefaultPrim()
    UsdPhysics.RigidBodyAPI.Apply(root)
    UsdPhysics.MassAPI.Apply(root).CreateMassAttr(CUBE_MASS)
    cube = _box(stage, "/block/geom", (side, side, side), (0.0, 0.0, 0.0), colour, collides=True)
    _bind_friction(stage, cube, "/block/material")
    _write(stage, path)


def _robot(path: Path) -> None:
    stage = _stage("panda")
    UsdPhysics.ArticulationRootAPI.Apply(stage.GetDefaultPrim())
    poses = {kinematics.BASE: (np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))}
    _link(stage, kinematics.BASE, *poses[kinematics.BASE])
    base = UsdPhysics.FixedJoint.Define(stage, "/panda/root_joint")
    base.CreateBody1Rel().SetTargets([f"/panda/{kinematics.BASE}"])
    for joint in kinematics.JOINTS:
        position, quat = poses[joint.parent]
        turn = kinematics.rpy_quat(*joint.rpy)
        pose = position + kinematics.rotate(quat, np.array(joint.xyz)), kinematics.multiply(quat, turn)
        poses[joint.child] = pose
        _link(stage, joint.child, *pose)
        _joint(stage, joint, turn)
    _write(stage, path)


def _link(stage: Usd.Stage, name: str, position: np.ndarray, quat: np.ndarray) -> None:
    mass, size, centre = LINKS[name]
    xform = UsdGeom.Xform.Define(stage, f"/panda/{name}")
    xform.AddTranslateOp().Set(Gf.Vec3d(*position.tolist()))
    xform.AddOrientOp().Set(Gf.Quatf(*quat.tolist()))
    prim = xform.GetPrim()
    UsdPhysics.RigidBodyAPI.Apply(prim)
    properties = UsdPhysics.MassAPI.Apply(prim)
    properties.CreateMassAttr(mass)
    # The inertia is explicit, because it cannot be computed for a link without a collision shape.
    properties.CreateDiagonalInertiaAttr(Gf.Vec3f(2e-4 if "finger" in name else 0.01 * mass))
    properties.CreatePrincipalAxesAttr(Gf.Quatf(1))
    properties.CreateCenterOfMassAttr(Gf.Vec3f(0))
    # IsaacLab's HIGH_PD config disables gravity for the robot, but Newton does not read that from the rigid body.
    prim.CreateAttribute("mjc:gravcomp", Sdf.ValueTypeNames.Float).Set(1.0)
    colour = DARK if "finger" in name else WHITE
    _box(stage, f"/panda/{name}/visuals/geom", size, centre, colour, collides=False)
    if name == kinematics.HAND or "finger" in name:
        shape = _box(stage, f"/panda/{name}/collisions/geom", size, centre, colour, collides=True)
        UsdGeom.Imageable(shape).CreatePurposeAttr("guide")
        if "finger" in name:
            _bind_friction(stage, shape, "/panda/finger_material")


def _joint(stage: Usd.Stage, joint: kinematics.Joint, turn: np.ndarray) -> None:
    kinds = {"Z": UsdPhysics.RevoluteJoint, "Y": UsdPhysics.PrismaticJoint, "": UsdPhysics.FixedJoint}
    usd = kinds[joint.axis].Define(stage, f"/panda/{joint.name}")
    usd.CreateBody0Rel().SetTargets([f"/panda/{joint.parent}"])
    usd.CreateBody1Rel().SetTargets([f"/panda/{joint.child}"])
    usd.CreateLocalPos0Attr(Gf.Vec3f(*joint.xyz))
    usd.CreateLocalRot0Attr(Gf.Quatf(*turn.tolist()))
    usd.CreateLocalPos1Attr(Gf.Vec3f(0))
    usd.CreateLocalRot1Attr(Gf.Quatf(1))
    if not joint.axis:
        return
    usd.CreateAxisAttr(joint.axis)
    unit = math.degrees(1) if joint.axis == "Z" else 1.0  # USD uses degrees
    usd.CreateLowerLimitAttr(joint.limits[0] * unit)
    usd.CreateUpperLimitAttr(joint.limits[1] * unit)
    drive = UsdPhysics.DriveAPI.Apply(usd.GetPrim(), "angular" if joint.axis == "Z" else "linear")
    drive.CreateTypeAttr("force")
    drive.CreateMaxForceAttr(joint.effort)
    stiffness, damping = (ARM_STIFFNESS, ARM_DAMPING) if joint.axis == "Z" else (FINGER_STIFFNESS, FINGER_DAMPING)
    first, second = kinematics.FINGERS
    if joint is second:  # the second finger has no drive of its own and follows the first
        stiffness = damping = 0.0
        prim = usd.GetPrim()
        prim.AddAppliedSchema("NewtonMimicAPI")
        prim.CreateRelationship("newton:mimicJoint").SetTargets([f"/panda/{first.name}"])
        prim.CreateAttribute("newton:mimicCoef0", Sdf.ValueTypeNames.Float).Set(0.0)
        prim.CreateAttribute("newton:mimicCoef1", Sdf.ValueTypeNames.Float).Set(1.0)
    drive.CreateStiffnessAttr(stiffness / unit)
    drive.CreateDampingAttr(damping / unit)
